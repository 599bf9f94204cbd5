"""Desired state: what is stored for one application, and what follows from it for one deployment. Pure.

A record holds more than the newest spec, because an application is replaced while it serves: a deployment
that the new spec does not have any more is *retiring*. It stays until the new ones serve, since old replicas
may still
call it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from slipknot_core.autoscaling_spec import PolicySpec
from slipknot_core.ids import DeploymentId
from slipknot_core.spec import ApplicationSpec, DeploymentSpec, ImportSource
from slipknot_proto.v1 import spec_pb2

_SEPARATOR = b"\n"

_UNSET = ".unset"
"""In a version, before the number of times that its user_config was taken away."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What one deployment should be."""

    id: DeploymentId
    spec: DeploymentSpec
    generation: int
    is_ingress: bool = False
    route_prefix: str | None = None
    may_start: bool = True
    """False: keep what runs, but start nothing (the application is being deleted and others still need this
    one).
    """

    def is_autoscaled_to(self, other: "Desired") -> bool:
        """Autoscaling has changed the number of replicas, and nothing else has changed."""
        same_number = replace(self.spec, num_replicas=other.spec.num_replicas)
        return self.spec.autoscaling is not None and replace(self, spec=same_number) == other


@dataclass(frozen=True, slots=True)
class Build:
    """An application that is to be built from an import path before it can be deployed."""

    source: ImportSource
    route_prefix: str | None = None
    overrides_json: str = "[]"
    """Option overrides by deployment, as in the config file."""
    error: str = ""
    """The traceback, once the build has failed."""
    autoscaling_policy: PolicySpec | None = None
    """Of the application, as in the config file."""


@dataclass(frozen=True, slots=True)
class ApplicationRecord:
    """One application as it is stored. Has a `spec`, or a `build` that makes one, or both."""

    name: str
    generation: int
    deployed_time_s: float
    spec: ApplicationSpec | None = None
    build: Build | None = None
    retiring: tuple[DeploymentSpec, ...] = ()
    previous_ingress: str = ""
    """The ingress deployment that serves until the spec's own one runs, if that is another; else empty."""
    is_deleting: bool = False
    is_good: bool = False
    """The spec has once been HEALTHY as a whole."""
    is_through: bool = False
    """It has once had no replica of an old version beside it: what retires was let go. The next controller
    does not see that at first.
    """
    previous: ApplicationSpec | None = None
    """The last good spec, for as long as `spec` is not."""
    failure: str = ""
    """Why `spec` is the one before what was asked for last; empty: it is not."""
    deploy_id: str = ""
    """The client's name for the newest deploy; empty if it gave none."""

    @property
    def route_prefix(self) -> str | None:
        """The prefix it holds, or will hold once it is built."""
        if self.build is not None:
            return self.build.route_prefix
        return self.spec.route_prefix if self.spec else None

    @property
    def is_building(self) -> bool:
        """A build is to be carried out."""
        return self.build is not None and not self.build.error

    def deployment_ids(self) -> list[DeploymentId]:
        """Ids of the deployments of the spec, then of those that are retiring."""
        names = [d.name for d in (*(self.spec.deployments if self.spec else ()), *self.retiring)]
        return [DeploymentId(self.name, name) for name in names]

    def with_spec(
        self, spec: ApplicationSpec, generation: int, deployed_time_s: float
    ) -> "ApplicationRecord":
        """The record after `spec` was deployed over this one."""
        before = {} if self.spec is None or self.is_deleting else {d.name: d for d in self.spec.deployments}
        after = self._replaced_by(
            spec.with_deployments([renewed(d, before.get(d.name)) for d in spec.deployments])
        )
        good = self.spec if self.is_good else self.previous
        return replace(
            after,
            generation=generation,
            deployed_time_s=deployed_time_s,
            build=None,
            is_deleting=False,
            previous=None if self.is_deleting else good,
        )

    def rolled_back(self, failure: str) -> "ApplicationRecord":
        """The record after the return to `previous`, which there must be, because of a `failure`."""
        assert self.previous is not None
        after = self._replaced_by(self.previous)
        return replace(after, is_good=True, previous=None, failure=failure)

    def _replaced_by(self, spec: ApplicationSpec) -> "ApplicationRecord":
        before = {} if self.is_deleting else {d.name: d for d in self.retiring}
        if self.spec is not None and not self.is_deleting:
            before |= {d.name: d for d in self.spec.deployments}
        names = {d.name for d in spec.deployments}
        retiring = {name: d for name, d in before.items() if name not in names}
        return replace(
            self,
            spec=spec.with_deployments([carried_over(d, before.get(d.name)) for d in spec.deployments]),
            retiring=tuple(retiring.values()),
            previous_ingress=self._previous_ingress(spec, set(retiring) | names),
            is_good=False,
            is_through=False,
            failure="",
        )

    def _previous_ingress(self, spec: ApplicationSpec, names: set[str]) -> str:
        if self.spec is None or self.is_deleting:
            return ""
        # If an earlier change of the ingress is not through yet, it is still the oldest one that serves.
        serving = (not self.is_good and self.previous_ingress) or self.spec.ingress_deployment
        return serving if serving != spec.ingress_deployment and serving in names else ""

    def to_bytes(self) -> bytes:
        """The stored form: one line of JSON, then the specs."""
        head = {
            "name": self.name,
            "generation": self.generation,
            "deployed_time_s": self.deployed_time_s,
            "build": asdict(self.build) if self.build else None,
            "has_spec": self.spec is not None,
            "previous_ingress": self.previous_ingress,
            "is_deleting": self.is_deleting,
            "is_good": self.is_good,
            "is_through": self.is_through,
            "has_previous": self.previous is not None,
            "failure": self.failure,
            "deploy_id": self.deploy_id,
        }
        specs = [spec.to_proto() for spec in (self.spec, self.previous) if spec is not None]
        if self.retiring:
            specs.append(spec_pb2.ApplicationSpec(deployments=[d.to_proto() for d in self.retiring]))
        parts = [s.SerializeToString() for s in specs]
        head["lengths"] = [len(part) for part in parts]
        return json.dumps(head).encode() + _SEPARATOR + b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> "ApplicationRecord":
        """Read the stored form."""
        line, _, rest = data.partition(_SEPARATOR)
        head = json.loads(line)
        specs = []
        for length in head["lengths"]:
            specs.append(ApplicationSpec.from_proto(spec_pb2.ApplicationSpec.FromString(rest[:length])))
            rest = rest[length:]
        spec = specs.pop(0) if head["has_spec"] else None
        previous = specs.pop(0) if head["has_previous"] else None
        return cls(
            name=head["name"],
            generation=head["generation"],
            deployed_time_s=head["deployed_time_s"],
            spec=spec,
            build=_build(head["build"]),
            retiring=specs[0].deployments if specs else (),
            previous_ingress=head["previous_ingress"],
            is_deleting=head["is_deleting"],
            is_good=head["is_good"],
            is_through=head.get("is_through", False),
            previous=previous,
            failure=head["failure"],
            deploy_id=head.get("deploy_id", ""),
        )


def carried_over(spec: DeploymentSpec, before: DeploymentSpec | None) -> DeploymentSpec:
    """`spec` with the number of replicas that autoscaling goes on from.

    A redeploy keeps the number there is, within the new bounds. A new autoscaling config that names
    `initial_replicas` begins with those.

    Args:
        spec: As deployed.
        before: The deployment of that name so far; None: there is none.
    """
    scaling = spec.autoscaling
    if scaling is None:
        return spec
    begins = before is None or (scaling.initial_replicas is not None and before.autoscaling != scaling)
    number = scaling.first_number if before is None or begins else before.num_replicas
    return replace(spec, num_replicas=scaling.within_bounds(number))


def renewed(spec: DeploymentSpec, before: DeploymentSpec | None) -> DeploymentSpec:
    """`spec` as another version of the same code if its user_config was taken away: a running replica cannot
    be told to forget the one it has.

    Args:
        spec: As deployed.
        before: The deployment of that name so far; None: there is none.
    """
    if before is None:
        return spec
    version, _, count = before.version.partition(_UNSET)
    if version != spec.version:
        return spec
    is_unset = before.user_config_json and not spec.user_config_json
    return replace(spec, version=f"{version}{_UNSET}{int(count or 0) + 1}" if is_unset else before.version)


def options_hash(spec: DeploymentSpec) -> str:
    """Identifies the options that a running replica can take over in place."""
    options = (
        spec.user_config_json,
        spec.max_ongoing_requests,
        spec.graceful_shutdown_wait_loop_s,
        spec.graceful_shutdown_timeout_s,
        spec.health_check_period_s,
        spec.health_check_timeout_s,
        spec.logging_config_json,
    )
    return hashlib.sha256(json.dumps(options).encode()).hexdigest()[:16]


def _build(fields: Mapping[str, Any] | None) -> Build | None:
    if fields is None:
        return None
    policy = fields.get("autoscaling_policy")
    built = {
        "source": ImportSource(**fields["source"]),
        "autoscaling_policy": PolicySpec(**policy) if policy else None,
    }
    return Build(**{**fields, **built})
