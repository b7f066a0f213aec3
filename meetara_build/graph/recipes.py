"""The slice of the configuration that each stage reads, and nothing else: an edit reaches a stage only through these."""

from collections.abc import Mapping
from typing import Any

from meetara_build.config.schema import Base, Build, Domain, GgufFile, Hardware
from meetara_build.llama_cpp.quants import CONVERTED, weighed
from meetara_build.store.manifest import digest_json

Slice = dict[str, Any]


def source_slices(domain: Domain) -> list[Slice]:
    """The sources as the dataset stage reads them; a file goes by its own name, so that moving a checkout changes nothing."""
    return [
        {
            "name": (source.path or source.hub or "").rstrip("/").rpartition("/")[2],
            "format": "hub" if source.hub else source.format,
            "hub": source.hub,
            "revision": source.revision,
            "split": source.split,
            "columns": source.columns,
            "language": source.language,
            "limit": source.limit,
        }
        for source in domain.sources
    ]


def corpus(base: Base, domains: Mapping[str, tuple[Domain, Build]]) -> Slice:
    """Which share of whose training records the embedded base may see."""
    assert base.pretraining is not None
    return {
        "share": base.pretraining.share,
        "domains": {
            name: _preparation(name, domain, build)
            for name, (domain, build) in sorted(domains.items())
        },
    }


def base(name: str, base: Base, build: Build) -> Slice:
    """How a base is made here, or where it comes from."""
    if base.made_here:
        assert base.tokenizer and base.model and base.pretraining
        pretraining = base.pretraining.model_dump(exclude={"share", "domains"})
        return {
            "name": name,
            "seed": build.seed,
            "chat_template": base.chat_template,
            "tokenizer": base.tokenizer.model_dump(),
            "model": base.model.model_dump(),
            "pretraining": pretraining,
            "threads": base.pretraining.threads,
        }
    if base.gguf is not None:
        return {"name": name, "gguf": original(base.gguf)}
    origin = {} if base.folder else {"hub_id": base.hub_id, "revision": base.revision}
    return {"name": name, **origin}


def original(file: GgufFile) -> Slice:
    """Which GGUF file a base is taken back from, and what pins it; one that is named by its path is pinned by its content."""
    if file.path is not None:
        return {"file": file.path.rpartition("/")[2]}
    return file.model_dump(exclude_none=True)


def base_gguf(name: str, base: Base, build: Build, hardware: Hardware) -> Slice:
    """A base's own F16 file, which every evaluation compares with."""
    return {
        "name": name,
        "domain": None,
        "base": name,
        "licence": base.licence,
        "recipe": None,
        "quants": ["F16"],
        "imatrix": {"enabled": False, "tokens": 0},
        "lora": False,
        "tensor_types": {},
        "threads": hardware.threads,
        "logits_bound": build.gguf.logits_bound,
        "system_prompt": None,
        "original": original(base.gguf) if base.gguf else None,
    }


def dataset(name: str, domain: Domain, build: Build) -> Slice:
    """Sources, cleaning, limits and split."""
    return {
        **_preparation(name, domain, build),
        "min_tokens": build.data.min_tokens,
        "max_tokens": build.data.max_tokens,
        "max_drop_share": build.data.max_drop_share,
        "drop": sorted(set(build.data.drop)),
    }


def adapter(name: str, build: Build, hardware: Hardware) -> Slice:
    """LoRA and its training, but for ``adapter_settings``."""
    training = build.training.model_dump(
        exclude={"loss_on_prompt", "checkpoint_seconds", "warm_start"}
    )
    training["joint"] = sorted(set(build.training.joint))
    training["observers"] = sorted(set(build.training.observers))
    if build.training.warm_start:
        training["warm_start"] = build.training.warm_start.partition("@")[2]
    return {
        "domain": name,
        "seed": build.seed,
        "threads": hardware.threads,
        "device": hardware.device,
        "precision": hardware.precision,
        "loss_on_prompt": build.training.loss_on_prompt,
        "max_tokens": build.data.max_tokens,
        "lora": build.lora.model_dump(),
        "training": training,
    }


def adapter_settings(build: Build) -> Slice:
    """What training obeys and no byte of its result depends on: not in the recipe, so that an edit trains nothing anew."""
    return {"training": {"checkpoint_seconds": build.training.checkpoint_seconds}}


def merge(name: str, build: Build, hardware: Hardware) -> Slice:
    """How exact the merge must be."""
    return {"domain": name, "threads": hardware.threads, "bound": build.merge.bound}


def gguf(
    name: str,
    base_name: str,
    base: Base,
    domain: Domain,
    build: Build,
    hardware: Hardware,
    above: Slice,
) -> Slice:
    """``above`` are the slices of the stages before: their digest goes into the file's metadata."""
    types = (
        build.gguf.tensor_types if any(quant not in CONVERTED for quant in domain.quants) else {}
    )
    weighted = build.gguf.imatrix.enabled and weighed(domain.quants, types.values())
    return {
        "name": name,
        "domain": name,
        "base": base_name,
        "licence": base.licence,
        "recipe": digest_json(above),
        "quants": domain.quants,
        "imatrix": build.gguf.imatrix.model_dump() if weighted else {"enabled": False, "tokens": 0},
        "lora": build.gguf.lora,
        "tensor_types": types,
        "threads": hardware.threads,
        "logits_bound": build.gguf.logits_bound,
        "system_prompt": domain.system_prompt,
    }


def evaluate(name: str, base_name: str, domain: Domain, build: Build, hardware: Hardware) -> Slice:
    """On what, and with which context, the files are evaluated; the bounds are the package's."""
    return {
        "domain": name,
        "base": base_name,
        "quants": domain.quants,
        "threads": hardware.threads,
        "context": build.data.max_tokens,
        "max_records": build.evaluation.max_records,
    }


def package(name: str, base_name: str, base: Base, domain: Domain, build: Build) -> Slice:
    """The gate's bounds, and what the model card and the Modelfile say."""
    return {
        "domain": name,
        "description": domain.description,
        "category": domain.category,
        "languages": domain.languages,
        "safety": domain.safety,
        "system_prompt": domain.system_prompt,
        "base": base_name,
        "base_origin": base.hub_id
        or ("made by this build" if base.made_here else "a local folder"),
        "base_file": original(base.gguf) if base.gguf else None,
        "licence": base.licence,
        "quants": domain.quants,
        "lora": build.gguf.lora,
        "beat_base_by": domain.evaluation.beat_base_by,
        "max_loss": build.evaluation.max_loss,
        "max_kl": {
            quant: bound
            for quant, bound in build.evaluation.max_kl.items()
            if quant in domain.quants
        },
    }


def report(domains: Mapping[str, tuple[Domain, Build]]) -> Slice:
    """What the map over all domains shows: their categories, and what their trainings take from one another."""
    training = {name: build.training for name, (_, build) in domains.items()}
    return {
        "domains": {name: domain.category for name, (domain, _) in domains.items()},
        "begins_from": {
            name: one.warm_start.partition("@")[0]
            for name, one in training.items()
            if one.warm_start
        },
        "learns_with": {
            name: sorted(set(one.joint)) for name, one in training.items() if one.joint
        },
    }


def _preparation(name: str, domain: Domain, build: Build) -> Slice:
    """What decides the records of a domain and their split, before any limit in tokens."""
    limits = build.data.model_dump(exclude={"min_tokens", "max_tokens", "max_drop_share", "drop"})
    return {
        "domain": name,
        "system_prompt": domain.system_prompt,
        "languages": domain.languages,
        "sources": source_slices(domain),
        **limits,
    }
