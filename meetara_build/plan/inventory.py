"""What lies below a root, looked at once: manifests, and files that are not what their manifest
says."""

from meetara_build.errors import ArtifactError
from meetara_build.graph import Graph, Step, states_file
from meetara_build.store.content import Store
from meetara_build.store.digests import Digests
from meetara_build.store.manifest import CHANGED, Manifest, faults, read_manifest


class Sight:
    """A look at a graph's artifacts. Files are read again only where they have changed since they
    were last read."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.store = Store(graph.store, graph.root)
        self.digests: list[Digests] = []
        self.spoilt: set[tuple[int, int]] = set()

    def manifest(self, step: Step) -> Manifest | None:
        """A step's manifest; None where it is missing or damaged."""
        try:
            return read_manifest(self.graph.root / step.place.manifest)
        except ArtifactError:
            return None

    def faults(self, step: Step, manifest: Manifest) -> dict[str, str]:
        """What is wrong with an artifact's files, by name."""
        digests = Digests(states_file(self.graph, step))
        self.digests.append(digests)
        folder = self.graph.root / step.place.folder
        found = faults(folder, manifest, digest=digests.file)
        for name, fault in found.items():
            if fault == CHANGED:
                status = (folder / name).stat()
                self.spoilt.add((status.st_dev, status.st_ino))
        return found

    def was_built(self, step: Step) -> bool:
        """Whether an artifact was here before whose manifest is gone or damaged."""
        return (self.graph.root / step.place.manifest).exists() or bool(
            self.store.read_reference(step.reference)
        )

    def is_damaged(self, store: Store, manifest: Manifest) -> bool:
        """Whether a blob of the store is known to be damaged: it is the same file as an artifact's
        that was changed."""
        if not self.spoilt:
            return False
        found = (store.blob(entry["sha256"]).stat() for entry in manifest.files.values())
        return any((status.st_dev, status.st_ino) in self.spoilt for status in found)

    def save(self) -> None:
        """Remember what was read, for the next look."""
        for digests in self.digests:
            digests.save()
