"""How connections are opened: logins, SSL, names, sockets; and what is said where the server refuses."""

import asyncio
import gc
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import asyncpg
import pytest

from dataflow import DataFlow
from dataflow.errors import ConfigurationError, DatabaseUnavailable

PASSWORD = "s3cret@:/%?#ä"
HBA = """\
host all with_password 127.0.0.1/32 scram-sha-256
host all shut_out 127.0.0.1/32 reject
"""


def openssl(folder, *words):
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def certify(folder, name, subject, extension=None, authority=None):
    """Make a key and a certificate: signed by an authority, or by itself."""
    openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
    if authority is None:
        openssl(
            folder, "req", "-x509", "-new", "-key", f"{name}.key", "-subj", subject, "-days", "2", "-out", f"{name}.crt"
        )
        return
    openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
    more = []
    if extension:
        (folder / f"{name}.ext").write_text(extension)
        more = ["-extfile", f"{name}.ext"]
    by = ["-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-set_serial", "7"]
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", *by, "-days", "2", "-out", f"{name}.crt", *more)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder of certificates: ca, stranger (another authority), server (127.0.0.1) and client by ca."""
    if shutil.which("openssl") is None:
        pytest.skip("makes certificates with openssl, which is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    certify(folder, "ca", "/CN=authority")
    certify(folder, "stranger", "/CN=somebody else")
    certify(folder, "server", "/CN=server", "subjectAltName=IP:127.0.0.1", "ca")
    certify(folder, "client", "/CN=client", authority="ca")
    return folder


@pytest.fixture
def tls(proxy, files):
    """A network whose far end offers encryption, for the embedded server is built without."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the test's certificates are short
    context.load_cert_chain(files / "server.crt", files / "server.key")
    proxy.tls = context
    return proxy


@pytest.fixture(scope="module")
def guarded(background, own_server, own_url):
    """The test's own server, with logins."""
    hba = Path(own_server.folder) / "data/pg_hba.conf"
    before = hba.read_text()
    hba.write_text(HBA + before)
    own_server.psql(
        f"""
        CREATE ROLE shut_out LOGIN;
        CREATE ROLE with_password LOGIN SUPERUSER PASSWORD '{PASSWORD}';
        SELECT pg_reload_conf();
        """
    )

    async def guards():
        try:
            await (await asyncpg.connect(own_url.replace("postgres@", "shut_out@"))).close()
        except asyncpg.InvalidAuthorizationSpecificationError:
            return True
        await asyncio.sleep(0.01)
        return False

    while not background.run(guards()):
        pass
    yield
    hba.write_text(before)
    own_server.psql("DROP ROLE shut_out; SELECT pg_reload_conf()")


def refused(db):
    with pytest.raises(DatabaseUnavailable) as caught:
        db.express_sync.count("Row")
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value.__cause__)
    return caught.value


# -- SSL --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("mode", "handshakes"),
    [(None, ["ssl"]), ("disable", ["plain"]), ("allow", ["plain"]), ("prefer", ["ssl"]), ("require", ["ssl"])],
)
@pytest.mark.parametrize("place", ["url", "setting"])
async def test_sslmode_decides_whether_a_connection_is_encrypted(pg, tls, mode, handshakes, place):
    url = tls.url(pg.url)
    if place == "url" and mode is not None:
        url += f"?sslmode={mode}"
    db = pg.open(url, postgres_sslmode=mode if place == "setting" else None)
    await db.express.create("Row", {"n": 1})
    assert tls.handshakes == handshakes
    await db.aclose()


def test_a_server_that_insists_on_ssl(pg, tls):
    tls.plain = False
    for mode in ("allow", "prefer", "require"):
        assert pg.open(tls.url(pg.url), postgres_sslmode=mode).express_sync.count("Row") == {"count": 0}
    error = refused(pg.open(tls.url(pg.url), postgres_sslmode="disable"))
    assert error.message == "the server refused the login: no pg_hba.conf entry for this host, no encryption"
    assert "pg_hba.conf" in error.hint


def test_a_server_without_ssl_and_a_client_that_insists(pg):
    if pg.server.value("SHOW ssl") == "on":
        pytest.skip("needs a server without SSL")
    error = refused(pg.open(postgres_sslmode="require"))
    assert error.message == "the database server speaks no SSL"
    assert "sslmode=prefer" in error.hint


@pytest.mark.parametrize("place", ["url", "setting"])
async def test_certificates_are_checked(pg, tls, files, place):
    def open_with(mode, authority, host="127.0.0.1"):
        url = tls.url(pg.url).replace("127.0.0.1", host)
        if place == "url":
            return pg.open(f"{url}?sslmode={mode}&sslrootcert={files}/{authority}.crt")
        return pg.open(url, postgres_sslmode=mode, postgres_sslrootcert=f"{files}/{authority}.crt")

    for mode in ("verify-ca", "verify-full"):
        assert await open_with(mode, "ca").express.count("Row") == {"count": 0}
        with pytest.raises(DatabaseUnavailable, match="certificate was refused") as caught:
            await open_with(mode, "stranger").express.count("Row")
        assert "sslrootcert" in caught.value.hint
    assert await open_with("verify-ca", "ca", "localhost").express.count("Row") == {"count": 0}
    with pytest.raises(DatabaseUnavailable, match="certificate was refused: Hostname mismatch"):
        await open_with("verify-full", "ca", "localhost").express.count("Row")


async def test_the_client_shows_its_own_certificate(pg, tls, files):
    tls.tls.verify_mode = ssl.CERT_REQUIRED
    tls.tls.load_verify_locations(files / "ca.crt")
    with_files = {"postgres_sslcert": f"{files}/client.crt", "postgres_sslkey": f"{files}/client.key"}
    db = pg.open(tls.url(pg.url), postgres_sslmode="require", **with_files)
    assert await db.express.count("Row") == {"count": 0}
    with pytest.raises(DatabaseUnavailable):
        await pg.open(tls.url(pg.url), postgres_sslmode="require").express.count("Row")


@pytest.mark.parametrize("option", ["sslrootcert", "sslcert"])
def test_files_that_are_not_there(pg, tls, option):
    db = pg.open(tls.url(pg.url), postgres_sslmode="verify-ca", **{f"postgres_{option}": "/nowhere/at/all"})
    with pytest.raises((ConfigurationError, DatabaseUnavailable)) as caught:
        db.express_sync.count("Row")
    assert "certificate" in str(caught.value)


def test_url_and_setting_that_contradict_each_other(pg):
    with pytest.raises(ConfigurationError, match="the URL says sslmode=require, the setting"):
        pg.open(f"{pg.url}?sslmode=require", postgres_sslmode="disable")


async def test_cancelling_works_on_encrypted_connections(pg, tls):
    db = pg.open(tls.url(pg.url), postgres_sslmode="require")
    pid = await pg.pid(db)
    task = asyncio.create_task(pg.sql(db, "SELECT pg_sleep(600)"))
    await pg.eventually(lambda: pg.connections("wait_event = 'PgSleep'"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pg.active() == []
    assert await pg.pid(db) == pid
    assert tls.handshakes == ["ssl", "ssl"]  # the second asked to cancel
    await db.aclose()


def test_encrypted_connections_close_with_their_loop(pg, tls, caplog):
    db = pg.open(tls.url(pg.url), postgres_sslmode="require")
    for n in range(3):
        asyncio.run(db.express.create("Row", {"n": n}))
        pg.until(lambda: not pg.connections())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(db.express.count("Row"))
    loop.close()  # without notice
    db.close()
    pg.until(lambda: not pg.connections())
    del loop
    gc.collect()
    assert [record for record in caplog.records if "SSL connection is closed" not in record.message] == []


# -- logins -----------------------------------------------------------------------------------------------------------
def test_passwords_may_hold_any_character(own, guarded):
    for text in (PASSWORD, "s3cret%40%3A%2F%25%3F%23%C3%A4"):
        db = own.open(own.url.replace("postgres@", f"with_password:{text}@"))
        assert db.express_sync.count("Row") == {"count": 0}
        assert "s3cret" not in repr(db) + str(db.health())
        db.close()


@pytest.mark.parametrize(
    ("login", "message"),
    [
        ("with_password:s3cret", "the server refused the password"),
        ("with_password", "password"),
        ("nobody:s3cret", 'the server refused the login: role "nobody" does not exist'),
        ("shut_out:s3cret", "the server refused the login"),
    ],
)
def test_logins_that_the_server_refuses(own, guarded, login, message, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    error = refused(own.open(own.url.replace("postgres@", f"{login}@")))
    assert message in error.message
    assert error.where["host"] == "127.0.0.1"


def test_a_database_that_is_not_there(pg):
    error = refused(pg.open(pg.server.server.url("there_is_none")))
    assert error.message == "the database of the URL does not exist"
    assert error.hint == "create it: createdb NAME"


def test_a_server_that_is_not_there(pg):
    error = refused(pg.open("postgresql://me:s3cret@127.0.0.1:1/app"))
    assert error.message == "the database server cannot be reached"
    assert error.where == {"host": "127.0.0.1", "port": 1}


async def test_a_server_that_says_nothing(pg, proxy):
    proxy.mode = "silent"
    db = pg.open(f"{proxy.url(pg.url)}?connect_timeout=0.2")
    with pytest.raises(DatabaseUnavailable, match=r"did not answer within 0\.2 s"):
        await db.express.count("Row")
    proxy.mode = "pass"
    assert await db.express.count("Row") == {"count": 0}
    proxy.reset()


# -- what the server sees ---------------------------------------------------------------------------------------------
async def test_the_application_has_a_name_on_the_server(pg):
    named = pg.open(f"{pg.url}?application_name=from%20the%20URL")
    assert await pg.sql(named, "SHOW application_name") == [("from the URL",)]
    await pg.sql(named, "SET application_name = 'mine'")
    assert await pg.sql(named, "SHOW application_name") == [("from the URL",)]
    await named.aclose()
    with DataFlow(pg.url) as plain:
        assert await pg.sql(plain, "SHOW application_name") == [("dataflow",)]
        await plain.aclose()


@pytest.mark.parametrize("schema", ["plain", 'Weird "schema", it\'s', "größe"])
async def test_tables_are_kept_in_the_schema_of_the_setting(pg, schema):
    db = pg.open(postgres_schema=schema, enable_model_persistence=False)
    try:
        await db.express.create("Row", {"n": 1})
        assert pg.server.rows("SELECT tablename::text FROM pg_tables WHERE schemaname = $1", schema) == [("rows",)]
        assert await asyncio.to_thread(db.show_tables) == ["rows"]
        assert await pg.sql(db, "SELECT n FROM rows") == [(1,)]
    finally:
        quoted = schema.replace('"', '""')
        pg.server.rows(f'DROP SCHEMA IF EXISTS "{quoted}" CASCADE')


async def test_options_of_the_url_reach_the_server(pg):
    db = pg.open(f"{pg.url}?options=-c%20work_mem%3D7MB")
    assert await pg.sql(db, "SHOW work_mem") == [("7MB",)]
    await pg.sql(db, "SET work_mem = '8MB'")
    assert await pg.sql(db, "SHOW work_mem") == [("7MB",)]


async def test_a_unix_socket_works_as_well(pg):
    server = pg.server.server
    if not hasattr(server, "socket_url"):
        pytest.skip("needs the embedded server's socket")
    db = pg.open(server.socket_url(pg.url.rpartition("/")[2]))
    assert await pg.sql(db, "SELECT inet_client_addr() IS NULL") == [(True,)]
    await db.express.create("Row", {"n": 1})
    task = asyncio.create_task(pg.sql(db, "SELECT pg_sleep(600)"))
    await pg.eventually(lambda: pg.connections("wait_event = 'PgSleep'"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pg.active() == []


async def test_the_system_looks_after_connections_that_a_network_may_have_dropped(pg):
    db = pg.open()
    session = await db.core.database.lease(write=False, holder="test")
    try:
        found = session._link.raw._transport.get_extra_info("socket")
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
    finally:
        await session.release()
