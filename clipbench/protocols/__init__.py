"""The protocols: which classes are trained on and which are tested."""

from clipbench.protocols.base import Protocol, known_protocols, protocol

__all__ = ["Protocol", "known_protocols", "protocol"]
