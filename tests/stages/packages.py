"""A package's recipe and the figures it is judged by."""

from typing import Any

from meetara_build.stages.recipes.package import PackageRecipe

RECIPE = PackageRecipe.model_validate(
    {
        "domain": "nutrition",
        "description": "Everyday eating",
        "category": "healthcare",
        "languages": ["en", "es"],
        "safety": "strict",
        "system_prompt": "You are a dietitian.",
        "base": "tiny",
        "base_origin": "made by this build",
        "licence": "apache-2.0",
        "quants": ["F16", "Q4_K_M"],
        "files": "both",
        "beat_base_by": 0.02,
        "max_loss": None,
        "max_kl": {"Q4_K_M": 0.25},
        "base_file": None,
    }
)


def altered(**changes: Any) -> PackageRecipe:
    """The recipe with other values."""
    return RECIPE.model_copy(update=changes)


def evaluation(f16: float = 1.8, q4: float = 1.9, kl: float = 0.1) -> dict[str, Any]:
    def figures(loss: float, **more: float) -> dict[str, Any]:
        return {"loss": loss, "perplexity": 7.5, "bytes": 1000, **more}

    return {
        "records": 12,
        "tokens": 345,
        "kl_tokens": 300,
        "base": figures(2.0),
        "variants": {
            "F16": figures(f16),
            "Q4_K_M": figures(q4, kl_mean=kl, top_token_agreement=0.95),
        },
    }
