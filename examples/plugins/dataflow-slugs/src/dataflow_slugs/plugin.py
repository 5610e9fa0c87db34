"""The entry point: what this package offers. It imports none of it until a model asks."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dataflow.plugins import Feature, NodeSpec, SettingSpec, hookimpl

if TYPE_CHECKING:
    from dataflow.model import ModelDraft, ModelSpec

dataflow_api = "1.0"


@hookimpl
def dataflow_settings() -> Iterable[SettingSpec]:
    """Declare the model option."""
    doc = "Give records a unique slug: {'from': a text field, or several; 'longest': characters, 80 by default}."
    return [SettingSpec("slug", object, None, doc, scope="model")]


@hookimpl
def dataflow_features(model: "ModelDraft") -> Iterable[Feature] | None:
    """Give a model slugs that asks for them."""
    if model.options.get("slug") is None:
        return None
    from dataflow_slugs.feature import Slugs

    return [Slugs.asked_for(model)]


@hookimpl
def dataflow_nodes(model: "ModelSpec") -> Iterable[NodeSpec] | None:
    """Give such a model its nodes."""
    if model.options.get("slug") is None:
        return None
    from dataflow_slugs.nodes import BY_SLUG, RESLUG

    names = tuple(model.fields)
    return [BY_SLUG.node(model.name, (), names), RESLUG.node(model.name, (), names)]
