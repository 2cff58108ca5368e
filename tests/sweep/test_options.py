import importlib
import json

import pytest


@pytest.mark.parametrize("script", ["ray_train_multirun", "ray_exec", "multirun_metrics"])
def test_options_are_those_of_the_original(compat, script):
    """And further ones, which have defaults."""
    facts = json.loads((compat / "cli.json").read_text())[f"{script}.py"]
    module = importlib.import_module(script)
    assert all(callable(getattr(module, name)) for name in facts["functions"])
    here = {parameter.name: parameter for parameter in module.main.params}
    assert here.keys() >= set(facts["main_params"])
    for wanted in facts["options"]:
        parameter = here[wanted["dest"]]
        assert set(parameter.opts) == set(wanted["names"])
        assert parameter.required == wanted["required"]
        assert parameter.nargs == wanted.get("nargs", 1)
        if wanted["kind"] == "option":
            assert parameter.is_flag == wanted.get("is_flag", False)
            assert parameter.multiple == wanted.get("multiple", False)
        if "default" in wanted:
            assert parameter.default == wanted["default"]
        if wanted.get("type") in ("float", "int", "bool"):
            assert parameter.type.name.startswith(wanted["type"])
        if "help" in wanted:
            assert parameter.help == wanted["help"]
    further = [parameter for name, parameter in here.items() if name not in facts["main_params"]]
    assert not any(parameter.required for parameter in further)
