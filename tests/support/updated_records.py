"""Records of an application that is being updated."""

from dataclasses import replace

from slipknot_controller.desired import ApplicationRecord
from slipknot_core.spec import ApplicationSpec, CodeSource, DeploymentSpec


def spec(*names: str, version: str) -> ApplicationSpec:
    """An application; its first deployment is the ingress."""
    return ApplicationSpec(
        "app", names[0], tuple(DeploymentSpec(n, CodeSource(), version=version) for n in names)
    )


def updated(*names: str) -> ApplicationRecord:
    """After an update of Front and Back, which were good, to these."""
    first = ApplicationRecord("app", 1, 0.0).with_spec(spec("Front", "Back", version="v1"), 1, 0.0)
    return replace(first, is_good=True).with_spec(spec(*names, version="v2"), 2, 0.0)
