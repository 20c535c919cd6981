"""The conformance suite: properties that every method and every card must have, importable by plug-ins.

A plug-in tests its method in three lines:

    @pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__)
    def test_my_method(check, tmp_path):
        run_check(check, "my_recipe.yaml", tmp_path)
"""
