"""Records of earlier schemas in the words of this one."""

from __future__ import annotations

from typing import Any


def in_this_schema(data: Any, schema: int) -> Any:
    """A record of schema 1 as it would be written today; anything else as it is.

    Schema 1 called the diagnostics findings and the augmentation views. Its config had the protocol beside the
    sections, a file of weights under another name, and the data's own augmentation even where the suite's acted.

    Args:
        data: of the file, unchecked.
        schema: today's number.
    """
    if not isinstance(data, dict) or data.get("schema") != 1:
        return data
    data = {"diagnostics" if name == "findings" else name: value for name, value in data.items()} | {"schema": schema}
    provenance, config = data.get("provenance"), data.get("config")
    if isinstance(provenance, dict) and "views" in provenance:
        provenance = {"augmentation" if name == "views" else name: value for name, value in provenance.items()}
        data["provenance"] = provenance
    if isinstance(config, dict):
        config = {name: value for name, value in config.items() if name not in ("protocol", "deliverable")}
        section = config.get("data")
        arguments = section.get("init_args") if isinstance(section, dict) else None
        if isinstance(section, dict) and isinstance(arguments, dict):
            ran = provenance.get("augmentation") if isinstance(provenance, dict) else None
            more = {"protocol": data["config"]["protocol"]} if "protocol" in data["config"] else {}
            more |= ran if isinstance(ran, dict) else {}
            config["data"] = section | {"init_args": arguments | more}
        data["config"] = config
    return data
