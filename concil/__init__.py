"""A parallel transfer engine for OCI and Docker registries."""

from __future__ import annotations

import itertools
import sys

TYPE_CHECKING = False  # as that of typing, which the command line need not import
if TYPE_CHECKING:
    from concil.auth.credentials.credentials import Credentials
    from concil.config import HostLimits, RetryPolicy, Timeouts, TransferConfig
    from concil.display.display import ProgressDisplay
    from concil.dockerhub import DockerHub, parse_docker_url
    from concil.engine.artifacts.files import ArtifactFile
    from concil.engine.artifacts.puller import PulledArtifact, PulledFile
    from concil.engine.artifacts.pusher import PushedArtifact
    from concil.engine.blobs.blob_file import BlobFile
    from concil.engine.blobs.blob_stream import SupportsWrite
    from concil.engine.engine import Engine
    from concil.engine.image_resolver import Endpoints
    from concil.engine.images.image_diff import FieldDifference, ImageDiff, PlatformDifference
    from concil.engine.images.image_tree import TreeNode
    from concil.engine.images.tags import TagDetails
    from concil.engine.images.usage import DiskUsage, ImageUsage
    from concil.engine.layer import LayerArchive
    from concil.engine.store_factory import EndpointOptions
    from concil.engine.verified_response import VerifiedResponse
    from concil.errors import ConcilError
    from concil.http.requests_session import TLSSettings
    from concil.http.warning_header import RegistryWarning
    from concil.oci.descriptor import Descriptor
    from concil.oci.manifest import Digest, Manifest
    from concil.oci.platform import Platform
    from concil.plan.load_baseline import load_baseline
    from concil.plan.plan import Plan, PlanItems
    from concil.progress.events import Event, ProgressSink, State
    from concil.progress.request_observer import Exchange, RequestObserver
    from concil.report.timeline import Timeline
    from concil.runtime.cancellation import SupportsIsSet
    from concil.store.airgap.baseline import Baseline
    from concil.store.layout.garbage import Garbage, GarbageReport
    from concil.transfer.blob.stream import SupportsRead
    from concil.transfer.blob.transfer import BlobResult
    from concil.transfer.findings import Condition, Finding
    from concil.transfer.image.job import ForeignLayers
    from concil.transfer.image.result import ImageResult
    from concil.transfer.journal import Journal
    from concil.transfer.mirror.prune import PruneOptions, PruneResult, Removal
    from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome
    from concil.transfer.signatures.verifier import ImageVerifier
    from concil.trust.policy import TrustPolicy

__version__ = "2.0.0"

__all__ = [
    "ArtifactFile",
    "Baseline",
    "BlobFile",
    "BlobResult",
    "ConcilError",
    "Condition",
    "Credentials",
    "Descriptor",
    "Digest",
    "DiskUsage",
    "DockerHub",
    "EndpointOptions",
    "Endpoints",
    "Engine",
    "Event",
    "Exchange",
    "FieldDifference",
    "Finding",
    "ForeignLayers",
    "Garbage",
    "GarbageReport",
    "HostLimits",
    "ImageDiff",
    "ImageResult",
    "ImageUsage",
    "ImageVerifier",
    "Journal",
    "LayerArchive",
    "Manifest",
    "MirrorItem",
    "MirrorReport",
    "Outcome",
    "Plan",
    "PlanItems",
    "Platform",
    "PlatformDifference",
    "ProgressDisplay",
    "ProgressSink",
    "PruneOptions",
    "PruneResult",
    "PulledArtifact",
    "PulledFile",
    "PushedArtifact",
    "RegistryWarning",
    "Removal",
    "RequestObserver",
    "RetryPolicy",
    "State",
    "SupportsIsSet",
    "SupportsRead",
    "SupportsWrite",
    "TLSSettings",
    "TagDetails",
    "Timeline",
    "Timeouts",
    "TransferConfig",
    "TreeNode",
    "TrustPolicy",
    "VerifiedResponse",
    "load_baseline",
    "parse_docker_url",
]


def _is_program() -> bool:
    """Return whether the command line is starting: ``concil`` or ``python -m concil``."""
    name: str = (getattr(sys, "argv", None) or [""])[0]
    words = sys.orig_argv
    is_module = name == "-m" and ("-m", __name__) in itertools.pairwise(words)
    return is_module or name.rpartition("/")[2] == "concil"


# Without a handler Python prints warnings of a library whose program has set up no logging.
# The command line has a handler of its own, and need not import logging to print its version.
if not _is_program():
    import logging

    logging.getLogger(__name__).addHandler(logging.NullHandler())

# Imported on first access: the command line needs only some of them, and importing all of them
# would delay each command by a tenth of a second.
_EXPORTS = {
    "runtime.cancellation": ("SupportsIsSet",),
    "config": ("HostLimits", "RetryPolicy", "Timeouts", "TransferConfig"),
    "oci.descriptor": ("Descriptor",),
    "oci.digest": ("Digest",),
    "oci.manifest": ("Manifest",),
    "oci.platform": ("Platform",),
    "display.display": ("ProgressDisplay",),
    "dockerhub": ("DockerHub", "parse_docker_url"),
    "engine.artifacts.files": ("ArtifactFile",),
    "engine.artifacts.puller": ("PulledArtifact", "PulledFile"),
    "engine.artifacts.pusher": ("PushedArtifact",),
    "engine.blobs.blob_file": ("BlobFile",),
    "engine.blobs.blob_stream": ("SupportsWrite",),
    "engine.engine": ("Engine",),
    "engine.image_resolver": ("Endpoints",),
    "errors": ("ConcilError",),
    "engine.layer": ("LayerArchive",),
    "progress.events": ("Event", "ProgressSink", "State"),
    "progress.request_observer": ("Exchange", "RequestObserver"),
    "auth.credentials.credentials": ("Credentials",),
    "http.requests_session": ("TLSSettings",),
    "http.warning_header": ("RegistryWarning",),
    "plan.load_baseline": ("load_baseline",),
    "plan.plan": ("Plan", "PlanItems"),
    "store.airgap.baseline": ("Baseline",),
    "store.layout.garbage": ("Garbage", "GarbageReport"),
    "engine.store_factory": ("EndpointOptions",),
    "engine.images.image_diff": ("FieldDifference", "ImageDiff", "PlatformDifference"),
    "engine.images.image_tree": ("TreeNode",),
    "engine.images.tags": ("TagDetails",),
    "engine.images.usage": ("DiskUsage", "ImageUsage"),
    "report.timeline": ("Timeline",),
    "transfer.blob.stream": ("SupportsRead",),
    "transfer.blob.transfer": ("BlobResult",),
    "transfer.findings": ("Condition", "Finding"),
    "transfer.image.job": ("ForeignLayers",),
    "transfer.image.result": ("ImageResult",),
    "transfer.journal": ("Journal",),
    "transfer.mirror.report": ("MirrorItem", "MirrorReport", "Outcome"),
    "transfer.mirror.prune": ("PruneResult", "PruneOptions", "Removal"),
    "engine.verified_response": ("VerifiedResponse",),
    "transfer.signatures.verifier": ("ImageVerifier",),
    "trust.policy": ("TrustPolicy",),
}
_MODULE_BY_NAME = {name: home for home, names in _EXPORTS.items() for name in names}

# A type checker that sees `__getattr__` accepts every attribute name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name on first access."""
        if name not in _MODULE_BY_NAME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib  # noqa: PLC0415  # the command line need not import it

        value = getattr(importlib.import_module(f"concil.{_MODULE_BY_NAME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the names of the module, with those that are not imported yet."""
    return sorted({*globals(), *__all__})
