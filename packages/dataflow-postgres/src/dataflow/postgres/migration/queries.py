"""What is asked of PostgreSQL's catalogues: one query for each kind of object of the whole schema at hand.

The schema at hand is the first of the search path, so that the server's texts do not qualify its objects.
"""

_HERE = "to_regnamespace(quote_ident(current_schema()))"
_OWN = rf"""relnamespace = {_HERE} AND relname NOT LIKE 'dataflow\_%' AND NOT EXISTS (
    SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = its.oid AND deptype = 'e')"""
"""Relations of the schema that neither the framework nor an extension has made."""
_OBJECTS = rf"""
    SELECT 'view' AS kind, 'pg_class'::regclass AS place, oid AS id, relname::text AS name, relowner AS owner,
           relacl AS acl, 'r'::"char" AS letter
    FROM pg_class AS its WHERE {_OWN} AND relkind IN ('v', 'm')
    UNION ALL
    SELECT 'function', 'pg_proc'::regclass, oid, quote_ident(proname) || '(' || oidvectortypes(proargtypes) || ')',
           proowner, proacl, 'f'
    FROM pg_proc WHERE pronamespace = {_HERE} AND prokind IN ('f', 'p', 'w') AND proname NOT LIKE 'dataflow\_%'
    UNION ALL
    SELECT 'enum', 'pg_type'::regclass, oid, typname::text, typowner, typacl, 'T'
    FROM pg_type WHERE typnamespace = {_HERE} AND typtype = 'e' AND typname NOT LIKE 'dataflow\_%'"""  # noqa: S608
"""What may be made anew, and has an owner."""
SERVER = """\
SELECT current_setting('server_version_num')::int,
       ARRAY(SELECT format_type(oid, NULL) FROM pg_type
             WHERE typtype = 'd' AND (typnotnull OR EXISTS (SELECT FROM pg_constraint WHERE contypid = pg_type.oid)))"""
GIVEN = f"""\
SELECT relname::text, attname::text, 'not_null', conname::text
FROM pg_class AS its
JOIN pg_constraint ON conrelid = its.oid AND contype = 'n' AND conislocal
JOIN pg_attribute ON attrelid = its.oid AND attnum = ANY (conkey)
WHERE {_OWN}
UNION ALL
SELECT its.relname::text, attname::text, 'seq', counter.relname::text
FROM pg_class AS its
JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = its.oid AND deptype = 'i' AND refobjsubid > 0
JOIN pg_class AS counter ON counter.oid = objid AND classid = 'pg_class'::regclass AND counter.relkind = 'S'
JOIN pg_attribute ON attrelid = its.oid AND attnum = refobjsubid
WHERE its.{_OWN.replace("AND relname", "AND its.relname")}"""  # noqa: S608
RELATIONS = f"""\
SELECT its.oid::int8, relname::text, relkind::text, relpersistence = 'u', relrowsecurity, relforcerowsecurity,
       reloptions,
       CASE relkind WHEN 'p' THEN pg_get_partkeydef(its.oid) END,
       CASE WHEN relispartition THEN pg_get_expr(relpartbound, its.oid) END,
       CASE relkind
           WHEN 'r' THEN pg_relation_size(its.oid)
           WHEN 'p' THEN (SELECT coalesce(sum(pg_relation_size(relid)), 0)::int8 FROM pg_partition_tree(its.oid))
           ELSE 0 END,
       CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(its.oid) END
FROM pg_class AS its
WHERE {_OWN} AND relkind IN ('r', 'p', 'v', 'm')
ORDER BY relname COLLATE "C\""""  # noqa: S608
COLUMNS = f"""\
SELECT attrelid::int8, attnum::int4, attname::text, format_type(atttypid, atttypmod), NOT attnotnull,
       pg_get_expr(adbin, adrelid), attgenerated::text, attidentity::text,
       CASE WHEN attcollation NOT IN (0, typcollation) THEN
           (SELECT CASE WHEN pg_collation_is_visible(pg_collation.oid) THEN '' ELSE quote_ident(nspname) || '.' END
                   || quote_ident(collname)
            FROM pg_collation JOIN pg_namespace ON pg_namespace.oid = collnamespace
            WHERE pg_collation.oid = attcollation) END
FROM pg_class AS its
JOIN pg_attribute ON attrelid = its.oid AND attnum > 0 AND NOT attisdropped
JOIN pg_type ON pg_type.oid = atttypid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE {_OWN} AND relkind IN ('r', 'p', 'v', 'm')
ORDER BY attrelid, attnum"""  # noqa: S608
CONSTRAINTS = f"""\
SELECT conrelid::int8, conname::text, contype::text, conkey, pg_get_constraintdef(pg_constraint.oid), confrelid::int8,
       confkey, confdeltype::text, confupdtype::text, convalidated,
       CASE WHEN confrelid <> 0 AND NOT EXISTS (SELECT FROM pg_class AS far
                                                WHERE far.oid = confrelid AND far.relnamespace = its.relnamespace)
            THEN ARRAY(SELECT confrelid::regclass::text UNION ALL (
                SELECT attname::text FROM unnest(confkey) WITH ORDINALITY AS listed (number, place)
                JOIN pg_attribute ON attrelid = confrelid AND attnum = number ORDER BY place)) END
FROM pg_class AS its JOIN pg_constraint ON conrelid = its.oid
WHERE {_OWN} AND relkind IN ('r', 'p') AND contype IN ('p', 'u', 'f', 'c', 'x')
      AND conparentid = 0 AND conislocal AND conname NOT LIKE 'dataflow\\_notnull\\_%'"""  # noqa: S608
INDEXES = f"""\
SELECT indrelid::int8, index_name::text, method::text, indisunique, indnkeyatts::int4, indkey::int2[],
       indoption::int2[],
       CASE WHEN 0 = ANY (indkey::int2[]) THEN
           ARRAY(SELECT pg_get_indexdef(indexrelid, n, false) FROM generate_series(1, indnkeyatts) AS n) END,
       ARRAY(SELECT CASE WHEN collation_id NOT IN (0, coalesce(attcollation, 100)) THEN
                 (SELECT CASE WHEN pg_collation_is_visible(c.oid) THEN '' ELSE quote_ident(nspname) || '.' END
                         || quote_ident(collname)
                  FROM pg_collation AS c JOIN pg_namespace ON pg_namespace.oid = collnamespace
                  WHERE c.oid = collation_id) END
             FROM unnest(indcollation::oid[], indkey::int2[]) WITH ORDINALITY AS listed (collation_id, number, place)
             LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = number AND number <> 0
             WHERE place <= indnkeyatts ORDER BY place),
       ARRAY(SELECT CASE WHEN NOT opcdefault OR attoptions IS NOT NULL THEN
                 CASE WHEN pg_opclass_is_visible(o.oid) THEN '' ELSE quote_ident(nspname) || '.' END
                 || quote_ident(opcname)
                 || coalesce(' (' || (SELECT string_agg(quote_ident(option_name) || '=' || quote_literal(option_value),
                                                        ', ')
                                      FROM pg_options_to_table(attoptions)) || ')', '') END
             FROM unnest(indclass::oid[]) WITH ORDINALITY AS listed (class_id, place)
             JOIN pg_opclass AS o ON o.oid = class_id
             JOIN pg_namespace ON pg_namespace.oid = opcnamespace
             JOIN pg_attribute ON attrelid = indexrelid AND attnum = place
             ORDER BY place),
       indnullsnotdistinct, storage, pg_get_expr(indpred, indrelid), indisvalid, orders
FROM pg_class AS its
JOIN pg_index ON indrelid = its.oid
JOIN (SELECT pg_class.oid, relname, reloptions, relispartition, amname,
             pg_indexam_has_property(relam, 'can_order')
      FROM pg_class JOIN pg_am ON pg_am.oid = relam
      WHERE relkind IN ('i', 'I')) AS index (index_id, index_name, storage, is_part, method, orders)
     ON index_id = indexrelid
WHERE {_OWN} AND NOT is_part
      AND ($1::text IS NULL OR index_name = $1)
      AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
ORDER BY index_name COLLATE "C\""""  # noqa: S608
TRIGGERS = f"""\
SELECT tgrelid::int8, tgname::text, pg_get_triggerdef(pg_trigger.oid, true)
FROM pg_class AS its JOIN pg_trigger ON tgrelid = its.oid
WHERE {_OWN} AND NOT tgisinternal AND tgparentid = 0 AND tgname NOT LIKE 'dataflow\\_%'
ORDER BY tgname COLLATE "C\""""  # noqa: S608
POLICIES = f"""\
SELECT polrelid::int8, polname::text, polpermissive, polcmd::text,
       ARRAY(SELECT CASE role WHEN 0 THEN 'PUBLIC' ELSE (SELECT quote_ident(rolname) FROM pg_roles WHERE oid = role) END
             FROM unnest(polroles) AS role ORDER BY 1),
       pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid),
       polroles = ARRAY(SELECT oid FROM pg_roles WHERE rolname = polname)
FROM pg_class AS its JOIN pg_policy ON polrelid = its.oid
WHERE {_OWN}
ORDER BY polname COLLATE "C\""""  # noqa: S608
"""The last column tells the policy of the confined role, which has its name, from others."""
FUNCTIONS = f"""\
SELECT quote_ident(proname) || '(' || oidvectortypes(proargtypes) || ')', prokind::text,
       overlay(definition PLACING quote_ident(proname) FROM start
               FOR length(quote_ident(nspname) || '.' || quote_ident(proname)))
FROM pg_namespace
JOIN pg_proc AS its ON pronamespace = pg_namespace.oid,
     LATERAL (SELECT pg_get_functiondef(its.oid) AS definition,
                     length('CREATE OR REPLACE FUNCTION ') + CASE prokind WHEN 'p' THEN 2 ELSE 1 END AS start) AS whole
WHERE pronamespace = {_HERE} AND prokind IN ('f', 'p', 'w') AND proname NOT LIKE 'dataflow\\_%'
      AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = its.oid AND deptype = 'e')
ORDER BY 1"""  # noqa: S608
SEQUENCES = f"""\
SELECT relname::text, format_type(seqtypid, NULL), seqincrement, seqmin, seqmax, seqstart, seqcache, seqcycle,
       (SELECT far.relname::text || '.' || attname::text FROM pg_depend
        JOIN pg_class AS far ON far.oid = refobjid
        JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
        WHERE classid = 'pg_class'::regclass AND objid = its.oid AND deptype = 'a' AND refobjsubid > 0)
FROM pg_class AS its JOIN pg_sequence ON seqrelid = its.oid
WHERE {_OWN} AND NOT EXISTS (
    SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = its.oid AND deptype = 'i')
ORDER BY relname COLLATE "C\""""  # noqa: S608
ENUMS = f"""\
SELECT typname::text, ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = its.oid ORDER BY enumsortorder)
FROM pg_type AS its
WHERE typnamespace = {_HERE} AND typtype = 'e' AND typname NOT LIKE 'dataflow\\_%'
      AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_type'::regclass AND objid = its.oid AND deptype = 'e')
ORDER BY typname COLLATE "C\""""  # noqa: S608
COMMENTS = f"""\
SELECT its.oid::int8, objsubid::int4, description
FROM pg_class AS its JOIN pg_description ON objoid = its.oid AND classoid = 'pg_class'::regclass
WHERE relnamespace = {_HERE} AND relkind IN ('r', 'p', 'v', 'm')"""  # noqa: S608
READS = f"""\
SELECT DISTINCT ev_class::int8, refobjid::int8
FROM pg_class AS its
JOIN pg_rewrite ON ev_class = its.oid
JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid AND refclassid = 'pg_class'::regclass
WHERE {_OWN} AND relkind IN ('v', 'm') AND refobjid <> ev_class"""  # noqa: S608
PARENTS = f"""\
SELECT inhrelid::int8, inhparent::regclass::text
FROM pg_class AS its JOIN pg_inherits ON inhrelid = its.oid
WHERE {_OWN} AND relkind IN ('r', 'p')
ORDER BY inhrelid, inhseqno"""  # noqa: S608
OWNERS = f"""\
SELECT kind, name, quote_ident(rolname), rolcreates AND pg_has_role(owner, 'USAGE')
           AND CASE WHEN current_setting('server_version_num')::int >= 160000 THEN pg_has_role(owner, 'SET')
               ELSE pg_has_role(owner, 'MEMBER') END
FROM ({_OBJECTS}) AS its
JOIN (SELECT oid, rolname, has_schema_privilege(oid, {_HERE}, 'CREATE')
                            OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
      FROM pg_roles) AS role (role_id, rolname, rolcreates) ON role_id = owner
WHERE rolname <> current_user
ORDER BY 1, 2"""  # noqa: S608
"""Objects of others, and whether a new object can be given to them."""
USUAL = f"""\
SELECT DISTINCT CASE defaclobjtype WHEN 'r' THEN 'view' WHEN 'f' THEN 'function' ELSE 'enum' END,
       CASE grantee WHEN 0 THEN 'PUBLIC' ELSE (SELECT quote_ident(rolname) FROM pg_roles WHERE oid = grantee) END
FROM pg_default_acl, aclexplode(defaclacl)
WHERE defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND grantee <> defaclrole
      AND defaclnamespace IN (0, {_HERE}) AND defaclobjtype IN ('r', 'f', 'T')
ORDER BY 1, 2"""  # noqa: S608
GRANTS = f"""\
SELECT kind, owner_table, name, part,
       CASE grantee WHEN 0 THEN 'PUBLIC' ELSE (SELECT quote_ident(rolname) FROM pg_roles WHERE oid = grantee) END,
       privilege_type, is_grantable
FROM (SELECT kind, '' AS owner_table, name, '' AS part,
             coalesce(acl, CASE WHEN kind = ANY ($1::text[]) THEN acldefault(letter, owner) END) AS acl
      FROM ({_OBJECTS}) AS objects
      UNION ALL
      SELECT CASE WHEN relkind IN ('v', 'm') THEN 'view' ELSE 'column' END,
             CASE WHEN relkind IN ('v', 'm') THEN '' ELSE relname::text END,
             CASE WHEN relkind IN ('v', 'm') THEN relname::text ELSE attname::text END, attname::text, attacl
      FROM pg_class AS its JOIN pg_attribute ON attrelid = its.oid AND attnum > 0 AND attacl IS NOT NULL
      WHERE {_OWN} AND relkind IN ('r', 'p', 'v', 'm')) AS its
LEFT JOIN LATERAL aclexplode(acl) ON true
WHERE acl IS NOT NULL
ORDER BY kind, owner_table, name, part, 5, privilege_type"""  # noqa: S608
"""Privileges of what may be made anew, where they are not those that any object has; of tables, those of columns."""
REMARKS = f"""\
SELECT 'index', '', relname::text, description, NULL
FROM pg_class JOIN pg_description ON objoid = oid AND classoid = 'pg_class'::regclass
WHERE relnamespace = {_HERE} AND relkind IN ('i', 'I')
UNION ALL
SELECT 'constraint', relname::text, conname::text, description, NULL
FROM pg_class AS its JOIN pg_constraint ON conrelid = its.oid
JOIN pg_description ON objoid = pg_constraint.oid AND classoid = 'pg_constraint'::regclass
WHERE {_OWN}
UNION ALL
SELECT 'policy', relname::text, polname::text, description, NULL
FROM pg_class AS its JOIN pg_policy ON polrelid = its.oid
JOIN pg_description ON objoid = pg_policy.oid AND classoid = 'pg_policy'::regclass
WHERE {_OWN}
UNION ALL
SELECT 'trigger', relname::text, tgname::text, description, NULL
FROM pg_class AS its JOIN pg_trigger ON tgrelid = its.oid
JOIN pg_description ON objoid = pg_trigger.oid AND classoid = 'pg_trigger'::regclass
WHERE {_OWN}
UNION ALL
SELECT 'trigger', relname::text, tgname::text, NULL, tgenabled::text
FROM pg_class AS its JOIN pg_trigger ON tgrelid = its.oid AND tgenabled <> 'O' AND NOT tgisinternal
WHERE {_OWN}
UNION ALL
SELECT kind, '', name, description, NULL
FROM ({_OBJECTS}) AS objects JOIN pg_description ON objoid = id AND classoid = place AND objsubid = 0
WHERE kind IN ('function', 'enum')
ORDER BY 1, 2, 3"""  # noqa: S608
HANGING = f"""\
SELECT relname::text, attname::text, format('COMMENT ON COLUMN %I.%I IS %L', relname, attname, description)
FROM pg_class AS its JOIN pg_attribute ON attrelid = its.oid AND attnum > 0
JOIN pg_description ON objoid = its.oid AND classoid = 'pg_class'::regclass AND objsubid = attnum
WHERE {_OWN} AND relkind IN ('v', 'm')
UNION ALL
SELECT relname::text, attname::text,
       format('ALTER VIEW %I ALTER COLUMN %I SET DEFAULT ', relname, attname) || pg_get_expr(adbin, adrelid)
FROM pg_class AS its JOIN pg_attribute ON attrelid = its.oid JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE {_OWN} AND relkind = 'v'
UNION ALL
SELECT relname::text, '', rtrim(pg_get_ruledef(pg_rewrite.oid, true), ';')
FROM pg_class AS its JOIN pg_rewrite ON ev_class = its.oid AND rulename <> '_RETURN'
WHERE {_OWN} AND relkind IN ('v', 'm')
UNION ALL
SELECT its.relname::text, '', format('COMMENT ON INDEX %I IS %L', own.relname, description)
FROM pg_class AS its JOIN pg_index ON indrelid = its.oid JOIN pg_class AS own ON own.oid = indexrelid
JOIN pg_description ON objoid = indexrelid AND classoid = 'pg_class'::regclass
WHERE its.{_OWN.replace("AND relname", "AND its.relname")} AND its.relkind = 'm'
UNION ALL
SELECT its.relname::text, '', format('ALTER MATERIALIZED VIEW %I CLUSTER ON %I', its.relname, own.relname)
FROM pg_class AS its JOIN pg_index ON indrelid = its.oid AND indisclustered JOIN pg_class AS own ON own.oid = indexrelid
WHERE its.{_OWN.replace("AND relname", "AND its.relname")} AND its.relkind = 'm'
ORDER BY 1, 2, 3"""  # noqa: S608
"""Statements that make what hangs on views, and goes with them."""
