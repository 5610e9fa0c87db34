"""How a DataFlow takes on models: classes are read, features edit them, nodes are made, tables are compiled.

A part of `Core`. Touches no database.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from dataflow import config
from dataflow.errors import DataFlowError, InputError, MissingCapability, ModelError, suggest
from dataflow.fields import ForeignKey
from dataflow.model import FEATURE_OPTIONS, LONGEST_NAME, ClassReader, ModelDraft, ModelSpec
from dataflow.plan.bound import BoundModel
from dataflow.plan.stages import ordered
from dataflow.plugins import specs
from dataflow.plugins.hints import extra_for
from dataflow.plugins.manager import PluginSet
from dataflow.relations import Relations
from dataflow.watching import Watched

if TYPE_CHECKING:
    import sqlalchemy as sa

    from dataflow.core import Core


class Registering(Watched):
    """The models of a DataFlow.

    Attributes:
        models: name -> bound model.
        classes: name -> the user's class.
        node_types: node type -> (model or None, spec), of this instance's models and registered nodes.
        relations: what leads from model to model.
        keyed: the features, one of each name, whose plans depend on what surrounds a call.
    """

    plugins: PluginSet

    def _begin(self) -> None:
        """Begin without models."""
        self.models: dict[str, BoundModel] = {}
        self.classes: dict[str, type] = {}
        self.node_types: dict[str, tuple[BoundModel | None, specs.NodeSpec]] = {}
        self.relations = Relations(self.models)
        self.keyed: tuple[Any, ...] = ()
        self._keyed: dict[str, specs.Feature] = {}
        self._tables: dict[str, str] = {}
        self._indexes: dict[str, str] = {}
        self._metadata: sa.MetaData | None = None

    # -- registration ---------------------------------------------------------------------------------------------
    def register(self, cls: type, namespace: Mapping[str, Any], place: str) -> None:
        """Turn a class into a bound model with nodes.

        Raises:
            ModelError: the class, its name or its table cannot be used.
            MissingCapability: it asks for a feature that no plugin provides.
        """
        reader = ClassReader(
            cls,
            naive=self.config["naive_datetimes"],
            custom=self.plugins.resolve_annotation,
            model_options={name for scope, name in self.plugins.settings if scope == "model"},
            namespace=namespace,
            place=place,
        )
        try:
            draft = reader.read()
            for name, value in draft.options.items():
                declared = self.plugins.settings.get(("model", name))
                if declared is not None:
                    config.check_option(declared, value)
            features = self._features(draft)
            for feature in features:
                feature.extend_model(draft)
            spec = draft.freeze()
        except DataFlowError as error:
            error.at(model=cls.__name__, **({"file": place} if place else {}))
            raise
        if spec.name in self.models and self._same(spec):
            return
        self._refuse_clashes(spec)
        bound = BoundModel(cast("Core", self), spec, features)
        nodes = self.plugins.nodes(spec, self.config)
        for node in nodes.values():
            self.refuse_taken_node(node.type, f"model {spec.name}")
        self.models[spec.name] = bound
        try:
            self.relations.add(bound)
        except ModelError as error:
            del self.models[spec.name]
            error.at(model=spec.name)
            raise
        self.classes[spec.name] = cls
        self._keyed |= {feature.name: feature for feature in features if hasattr(feature, "plan_key")}
        self.keyed = tuple(self._keyed.values())
        self._wake()
        self._tables[spec.table.lower()] = spec.name
        self._indexes |= {index.name.lower(): spec.name for index in spec.indexes}
        for node in nodes.values():
            bound.nodes[node.type] = node
            self.node_types[node.type] = (bound, node)

    def _same(self, spec: ModelSpec) -> bool:
        return self.models[spec.name].spec == spec

    def _features(self, draft: ModelDraft) -> tuple[specs.Feature, ...]:
        found: list[tuple[str, specs.Feature]] = []
        for option, hook in FEATURE_OPTIONS.items():
            features = self.plugins.features(hook, model=draft, config=self.config)
            if option != "audit_log" and len(features) > 1:
                raise self.plugins.conflict(f"{option} of model {draft.name}", features[0][0], features[1][0])
            if draft.options.get(option) and not features:
                msg = f"model {draft.name} asks for {option}, which no active plugin provides"
                hint = extra_for("capability", option) or f"remove {option!r} from __dataflow__"
                raise MissingCapability(msg, hint=hint, where={"model": draft.name, "option": option})
            found += features
        found += self.plugins.features("dataflow_features", model=draft, config=self.config)
        owners: dict[str, str] = {}
        for plugin, feature in found:
            if feature.name in owners:
                what = f"the feature {feature.name!r} of model {draft.name}"
                raise self.plugins.conflict(what, owners[feature.name], plugin)
            owners[feature.name] = plugin
        return ordered([feature for _, feature in found], draft.name)

    def _refuse_clashes(self, spec: ModelSpec) -> None:
        where = {"model": spec.name, **({"file": spec.place} if spec.place else {})}
        if spec.name in self.models:
            first = self.models[spec.name].spec.place
            msg = f"a different model {spec.name} is registered already" + (f" ({first})" if first else "")
            raise ModelError(
                msg, hint="rename one, or register it on another DataFlow", where=where, code="duplicate-model"
            )
        table = spec.table.lower()
        if table in self._tables:
            msg = f"the models {self._tables[table]} and {spec.name} share the table {spec.table!r}"
            hint = f"set __tablename__ on {spec.name}"
            raise ModelError(msg, hint=hint, where=where, code="duplicate-table")
        own = {table}
        for index in spec.indexes:
            if len(index.name.encode()) > LONGEST_NAME:
                msg = f"the index name {index.name!r} is longer than {LONGEST_NAME} bytes"
                raise ModelError(msg, hint="shorten it (PostgreSQL's limit for identifiers)", where=where)
            name = index.name.lower()
            owner = spec.name if name in own else self._tables.get(name) or self._indexes.get(name)
            if owner is not None:
                msg = f"the index name {index.name!r} is taken by model {owner}"
                hint = "names of indexes and tables are global in a schema, whatever their case: rename it"
                raise ModelError(msg, hint=hint, where=where, code="duplicate-index")
            own.add(name)

    def refuse_taken_node(self, name: str, what: str) -> None:
        if name in self.node_types or name in self.plugins.workflow_nodes:
            msg = f"{what} would define the node type {name!r}, which exists already"
            raise ModelError(msg, hint="rename the model or the node", code="duplicate-node")

    # -- compilation ----------------------------------------------------------------------------------------------
    def table(self, bound: BoundModel) -> "sa.Table":
        """Build the SQLAlchemy table of a model, and of those its foreign keys lead to."""
        import sqlalchemy as sa  # the compiler loads when the first plan does

        from dataflow.schema import Reference, build_table

        if self._metadata is None:
            self._metadata = sa.MetaData()
        existing = self._metadata.tables.get(bound.spec.table)
        if existing is not None:
            return existing
        foreign: dict[str, Reference] = {}
        for relation in bound.relations.values():
            declared = bound.spec.fields[relation.local].relation
            if not relation.many and isinstance(declared, ForeignKey):
                target = self.models[relation.target].spec
                self._refuse_outside(bound, relation.local, target)
                foreign[relation.local] = Reference(relation.local, target, relation.remote, declared.on_delete)
        self._refuse_dangling(bound, foreign)
        table = build_table(bound.spec, self.dialect, self._metadata, list(foreign.values()))
        for relation in bound.relations.values():
            if relation.local in foreign and not relation.many:
                _ = self.models[relation.target].table
        return table

    def _refuse_outside(self, bound: BoundModel, field: str, target: ModelSpec) -> None:
        """Refuse a foreign key that the database could not keep within a scope."""
        if set(target.scope) <= set(bound.spec.scope):
            return
        scope = ", ".join(target.scope)
        msg = f"{bound.name}.{field} is a foreign key to {target.name}, whose records belong to a {scope} each"
        hint = f"give {bound.name} the same option, or annotate Relation instead of ForeignKey"
        place = {"file": bound.spec.place} if bound.spec.place else {}
        raise ModelError(msg, hint=hint, where={"model": bound.name, **place, "field": field}, code="bad-relation")

    def _refuse_dangling(self, bound: BoundModel, foreign: Mapping[str, Any]) -> None:
        for name, field in bound.spec.fields.items():
            if isinstance(field.relation, ForeignKey) and name not in foreign:
                target = field.relation.model
                close = suggest(target, self.models)
                msg = f"{bound.name}.{name} is a foreign key to model {target}, which is not registered"
                hint = f"did you mean {close!r}?" if close else f"register {target} before {bound.name} is used"
                place = {"file": bound.spec.place} if bound.spec.place else {}
                where = {"model": bound.name, **place, "field": name}
                raise ModelError(msg, hint=hint, where=where, code="bad-relation")

    def bind_operation(self, bound: BoundModel, name: str) -> Any:
        """Return a new implementation object of an operation for a model."""
        for node in bound.nodes.values():
            if node.operation == name:
                return specs.load(node.implementation)(bound)
        known = [node.operation for node in bound.nodes.values()]
        close = suggest(name, known)
        msg = f"model {bound.name} has no operation {name!r}"
        raise InputError(msg, hint=f"did you mean {close!r}?" if close else f"operations: {', '.join(known)}")

    def model(self, name: str) -> BoundModel:
        """Return a model by name.

        Raises:
            InputError: it is not registered here.
        """
        found = self.models.get(name)
        if found is None:
            close = suggest(str(name), self.models)
            known = ", ".join(self.models) or "none yet"
            msg = f"no model {name!r} is registered on this DataFlow"
            raise InputError(
                msg, hint=f"did you mean {close!r}?" if close else f"models: {known}", code="unknown-model"
            )
        return found
