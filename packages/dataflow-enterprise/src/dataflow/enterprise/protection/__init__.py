"""Write protection: one declarative policy on six levels, asked at build() and at execution, mirrored in the database.

`policy` holds the rules, `reading` reads them from TOML, `decision` decides; these three know neither databases nor
core. `feature` asks for every plan of a model, `guard` for SQL of the user's own and for what the database enforces.
"""

from dataflow.enterprise.protection.decision import Decision, Request, decide
from dataflow.enterprise.protection.feature import ProtectionFeature
from dataflow.enterprise.protection.guard import ProtectionGuard
from dataflow.enterprise.protection.health import check_model, protection_check
from dataflow.enterprise.protection.policy import LEVELS, OPERATIONS, Protection, Rule, Window
from dataflow.enterprise.protection.setting import policy_of, protection_of

__all__ = [
    "LEVELS",
    "OPERATIONS",
    "Decision",
    "Protection",
    "ProtectionFeature",
    "ProtectionGuard",
    "Request",
    "Rule",
    "Window",
    "check_model",
    "decide",
    "policy_of",
    "protection_check",
    "protection_of",
]
