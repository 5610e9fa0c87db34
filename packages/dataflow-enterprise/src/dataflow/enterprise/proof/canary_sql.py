"""SQL that a tenant might send to see another's rows; and, where nothing confines it, SQL that stays with its own."""

import random

_OWN = (
    "SELECT count(*) AS n, max(secret) AS s FROM accounts WHERE tenant_id = 'acme'",
    """\
SELECT e.text, a.secret FROM entries e JOIN accounts a ON a.id = e.account_id AND a.tenant_id = e.tenant_id
WHERE e.tenant_id = 'acme' LIMIT 5""",
    "UPDATE badges SET worth = worth + 1 WHERE tenant_id = 'acme'",
)
_ANY = (
    "SELECT * FROM accounts LIMIT 5",
    "SELECT count(*) AS n, min(secret) AS a, max(secret) AS b, sum(size) AS c FROM accounts",
    "SELECT max(ratio) AS r, max(price) AS p, max(at) AS t FROM accounts",
    "SELECT a.secret, e.text FROM accounts a JOIN entries e ON e.account_id = a.id LIMIT 5",
    "SELECT a.secret, b.label FROM accounts a CROSS JOIN badges b ORDER BY 1 LIMIT 5",
    "SELECT e.text, b.label FROM entries e LEFT JOIN badges b ON b.id = e.badge_id WHERE b.worth > 1000",
    "SELECT secret FROM accounts WHERE id IN (SELECT account_id FROM entries WHERE amount > 1000)",
    """\
WITH everything AS (
  SELECT secret AS s FROM accounts UNION ALL SELECT text FROM entries UNION ALL SELECT label FROM badges)
SELECT max(s) AS s, count(*) AS n FROM everything""",
    "SELECT secret, row_number() OVER (ORDER BY secret) AS r FROM accounts ORDER BY secret LIMIT 3",
    "SELECT (SELECT max(secret) FROM accounts) AS s, (SELECT max(label) FROM badges) AS l",
    "SELECT count(*) AS n FROM accounts WHERE secret LIKE 'CANARY%'",
    "SELECT 1 AS found WHERE EXISTS (SELECT 1 FROM accounts WHERE size > 1000000)",
    'SELECT "secret" AS s FROM "accounts" WHERE "email" = \'user1@x\'',
    "UPDATE accounts SET secret = 'mine now' WHERE secret LIKE 'CANARY%'",
    "UPDATE badges SET label = (SELECT max(secret) FROM accounts)",
    "UPDATE entries SET text = 'e' WHERE amount > 1000",
    "DELETE FROM entries WHERE amount > 1000",
    "DELETE FROM badges WHERE worth > 1000",
    "SELECT CAST(secret AS INTEGER) AS oracle FROM accounts WHERE secret LIKE 'CANARY%'",
    "SELECT count(*) AS n FROM dataflow_audit",
    "SELECT max(new) AS n FROM dataflow_audit",
)
_ROWS = (
    "SELECT * FROM badges WHERE tenant_id <> 'acme'",
    "SELECT tenant_id, count(*) AS n FROM entries GROUP BY tenant_id",
    "UPDATE badges SET tenant_id = 'acme'",
    """\
INSERT INTO badges (id, label, worth, tenant_id)
SELECT 'X' || id, label, worth, 'acme' FROM badges WHERE worth > 1000""",
    "SELECT secret FROM accounts WHERE tenant_id IN (SELECT tenant_id FROM badges)",
)
_SQLITE = (
    "SELECT secret FROM main.accounts",
    "SELECT name, sql FROM sqlite_master LIMIT 3",
    "SELECT * FROM sqlite_sequence",
    "SELECT json_group_array(secret) AS s FROM accounts",
    "SELECT * FROM pragma_table_info('accounts')",
    """\
SELECT secret FROM accounts NOT INDEXED
WHERE CASE WHEN secret LIKE 'CANARY%' THEN abs(-9223372036854775808) END IS NULL""",
    "SELECT rowid FROM accounts ORDER BY 1 DESC LIMIT 1",
    "INSERT OR REPLACE INTO badges (id, label) VALUES ('K1', 'replaced')",
)
_POSTGRES = (
    "SELECT set_config('dataflow.tenant', 'other', false) AS s, (SELECT max(secret) FROM accounts) AS m",
    "SELECT current_setting('dataflow.tenant', true) AS t, max(secret) AS m FROM accounts",
    "SELECT string_agg(secret, ',') AS s FROM accounts",
    "SELECT to_jsonb(a) AS j FROM accounts a LIMIT 2",
    "SELECT most_common_vals::text AS v FROM pg_stats WHERE tablename = 'accounts'",
    "SELECT relname::text AS r, reltuples FROM pg_class WHERE relname = 'accounts'",
    "SELECT 1 / (CASE WHEN secret LIKE 'CANARY%' THEN 0 ELSE 1 END) AS oracle FROM accounts",
    "SELECT * FROM dataflow_tenant_key",
    "INSERT INTO badges (id, label) VALUES ('K1', 'clash') ON CONFLICT DO NOTHING",
    "WITH gone AS (DELETE FROM badges WHERE worth > 1000 RETURNING *) SELECT count(*) AS n FROM gone",
)


def query(chance: random.Random, dialect: str, *, confined: bool, rows: bool) -> str:
    """Return a statement.

    Args:
        chance: the source of choices.
        dialect: "sqlite" or "postgresql".
        confined: whether something keeps it within the tenant; else it does so itself.
        rows: whether tenants share tables.
    """
    if not confined:
        return chance.choice(_OWN)
    own = _SQLITE if dialect == "sqlite" else _POSTGRES
    choices: list[str] = [*_ANY, *own, *(_ROWS if rows else ())]
    return chance.choice(choices)
