"""The notebook: executed by a real kernel, whose event loop is running while the cells make synchronous calls.

It runs as it is, in memory, and once more on PostgreSQL.
"""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook" / "quickstart.ipynb"
KERNEL = "dataflow-test"


def execute(notebook, folder):
    """Run the cells on the interpreter that runs the tests."""
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = folder / "kernels" / KERNEL / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": command, "display_name": KERNEL, "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        client = NotebookClient(notebook, timeout=60, kernel_name=KERNEL, resources={"metadata": {"path": str(folder)}})
        client.execute()
    return notebook


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory):
    """The notebook after its cells have run."""
    return execute(nbformat.read(NOTEBOOK, as_version=4), tmp_path_factory.mktemp("jupyter"))


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory, postgres_url):
    """The notebook after its cells have run on PostgreSQL."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = "".join(cell.source for cell in code_cells(notebook))
    assert code.count('DataFlow(":memory:")') == 1
    for cell in code_cells(notebook):
        cell.source = cell.source.replace('DataFlow(":memory:")', f"DataFlow({postgres_url!r})")
    return execute(notebook, tmp_path_factory.mktemp("jupyter"))


@pytest.fixture(params=["in_memory", "on_postgres"])
def executed(request):
    return request.getfixturevalue(request.param)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def all_outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def outputs(notebook, part):
    """The outputs of the one code cell whose source holds `part`."""
    (cell,) = [cell for cell in code_cells(notebook) if part in cell.source]
    return cell.outputs


def exactly(notebook, source):
    """The outputs of the code cell that says just this."""
    (cell,) = [cell for cell in code_cells(notebook) if cell.source == source]
    return cell.outputs


def test_every_cell_runs_without_an_error(executed):
    cells = code_cells(executed)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [output for cell in cells for output in cell.outputs if output.output_type == "error"] == []


def test_a_workflow_shows_itself_as_a_picture(executed):
    (shown,) = outputs(executed, "workflow = builder.build()")
    picture = shown.data["text/html"]
    assert picture.startswith("<svg")
    assert all(node in picture for node in ("CustomerCreateNode", "OrderBulkCreateNode", "OrderListNode"))


def test_the_results_of_a_run_colour_the_picture(executed):
    (plain,) = outputs(executed, "workflow = builder.build()")
    (coloured,) = outputs(executed, "workflow.to_svg(results)")
    assert coloured.data["image/svg+xml"].startswith("<svg")
    assert coloured.data["image/svg+xml"] != plain.data["text/html"]


def test_a_dataflow_shows_its_models(executed):
    (shown,) = exactly(executed, "db")
    assert shown.data["text/html"].startswith("<svg")
    assert "customer / orders" in shown.data["text/html"]


def test_results_and_models_show_themselves(executed):
    (run,) = outputs(executed, "%load_ext dataflow.notebook")
    assert "<th style='text-align:left'>large</th>" in run.data["text/html"]
    assert run.data["text/html"].count("<td style='text-align:right'>12.5</td>") == 1
    (model,) = exactly(executed, "Customer")
    assert "table customers" in model.data["text/html"]
    (found,) = outputs(executed, "await db.express.bulk_update")
    assert "text/html" not in found.data  # a list of the user's own
    (counted,) = outputs(executed, "db.express_sync.count")
    assert "text/html" not in counted.data


def test_synchronous_calls_work_inside_the_running_loop(executed):
    (shown,) = outputs(executed, "LocalRuntime().execute(workflow)")
    assert "'count': 2" in shown.data["text/plain"]
    (counted,) = outputs(executed, "db.express_sync.count")
    assert counted.data["text/plain"] == "{'count': 2}"


def test_express_is_awaited_at_top_level(executed):
    (shown,) = outputs(executed, "await db.express.list")
    assert "'name': 'Grace'" in shown.data["text/plain"]


def test_mistakes_are_shown_with_the_fix(executed):
    (shown,) = outputs(executed, "mistaken.build()")
    assert "did you mean 'email'?" in shown.text
    assert "did you mean 'total'?" in shown.text


def test_both_databases_show_the_same(in_memory, on_postgres):
    def texts(notebook):
        shown = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in all_outputs(notebook)]
        shown = [re.sub(r"<DataFlow \S+", "<DataFlow", text) for text in shown]
        return [re.sub(r"datetime\.datetime\([^)]*\)", "an instant", text) for text in shown]

    assert any("an instant" in text for text in texts(in_memory))
    assert texts(on_postgres) == texts(in_memory)


def test_the_notebook_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert [cell.outputs for cell in code_cells(notebook) if cell.outputs] == []
    assert {cell.execution_count for cell in code_cells(notebook)} == {None}
