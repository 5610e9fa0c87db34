"""Whether a policy means what is there: names that no model, field or connection has; and who enforces which rule."""

from typing import TYPE_CHECKING, Any

from dataflow.enterprise.protection.feature import labels_of
from dataflow.enterprise.protection.policy import Protection, bad_policy
from dataflow.errors import suggest
from dataflow.instances import labels, live_instances

if TYPE_CHECKING:
    from dataflow.engine import DataFlow
    from dataflow.enterprise.protection.grants import Enforced
    from dataflow.model import ModelSpec


def check_model(policy: Protection, model: "ModelSpec") -> None:
    """Check what a policy says about the fields of a model that is registered.

    Raises:
        ConfigurationError: a rule names a field that the model does not have.
    """
    for field in policy.named_models().get(model.name, ()):
        if field not in model.fields:
            close = suggest(field, model.fields)
            hint = f"did you mean {close!r}?" if close else f"fields: {', '.join(model.fields)}"
            raise bad_policy(f"model {model.name} has no field {field!r}", hint, f"field.{model.name}.{field}")


async def protection_check(db: "DataFlow", policy: Protection) -> dict[str, Any]:
    """Report on the policy of a DataFlow: names that fit nothing, and what the database enforces by itself."""
    from dataflow.enterprise.protection.grants import Enforced, beyond, found_privileges, wanted  # load the compiler

    core = db.core
    problems = []
    for name in policy.named_models():
        if name not in core.models:
            close = suggest(name, core.models)
            problems.append(f"no model {name!r} is registered" + (f"; did you mean {close!r}?" if close else ""))
    answering = {label for other in live_instances() for label in labels(other)} | labels_of(core)
    elsewhere = sorted({name for rule in policy.rules for name in rule.connections} - answering)
    for name in elsewhere:
        close = suggest(name, answering)
        problems += [f"no instance answers to {name!r}; did you mean {close!r}?"] if close else []
    rule_here = policy.read_only(labels_of(core))
    database, framework = ["SQL that reads"], [str(rule) for rule in policy.rules]
    role = await found_privileges(core)
    if role is not None:
        enforced, framework = _sorted(policy, Enforced(core, role))
        database += enforced
    if rule_here is not None:
        database, framework = [*database, "every write"], []
    found = {
        "ok": not problems,
        "rules": len(policy.rules),
        "elsewhere": elsewhere,
        "frozen": policy.frozen,
        "read_only": str(rule_here) if rule_here is not None else "",
        "by_the_database": database,
        "by_the_framework": framework,
    }
    if role is not None:
        found |= {"role": role.role, "beyond_the_policy": beyond(core, wanted(core, policy, role.role), role)}
    return {**found, "error": "; ".join(problems)} if problems else found


def _sorted(policy: Protection, enforced: "Enforced") -> tuple[list[str], list[str]]:
    """Return which rules the privileges of the connected role enforce, and which only the framework does."""
    rules = [(str(rule), enforced.rule(rule)) for rule in policy.rules]
    if policy.default == "deny":
        rules.append(('default = "deny"', enforced.default(policy)))
    return [text for text, held in rules if held], [text for text, held in rules if not held]
