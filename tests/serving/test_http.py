"""The server: right answers, and a sentence for everything that is wrong with a request."""

import json
import threading
import time

import pytest
import serving_models
import torch

from implicit_l2o.serving import Layer
from implicit_l2o.serving.errors import LimitError
from implicit_l2o.serving.http.limits import Limits

pytest.importorskip("fastapi", reason="fastapi is in the extra 'serve'")
pytest.importorskip("httpx2", reason="httpx2 drives the test client")
from fastapi.testclient import TestClient

from implicit_l2o.serving.http.app import make_app
from implicit_l2o.serving.http.server import is_loopback


def client(layer: Layer | None = None, limits: Limits | None = None, **options) -> TestClient:
    return TestClient(make_app(layer or serving_models.layer(), limits, **options))


def post(server: TestClient, body: bytes | str, kind: str = "application/json"):
    return server.post("/solve", content=body, headers={"content-type": kind})


def test_the_answers_are_those_of_the_layer():
    layer = serving_models.layer()
    d = torch.randn(4, 3)
    said = layer(d)
    with client(layer) as server:
        answers = server.post("/solve", json={"inputs": d.tolist(), "x": True}).json()["answers"]
    assert torch.equal(torch.tensor([answer["solution"] for answer in answers]), said.answer)
    assert torch.equal(torch.tensor([answer["x"] for answer in answers]), said.x)
    assert [answer["status"] for answer in answers] == ["CONVERGED"] * 4
    assert [answer["steps"] for answer in answers] == said.steps.tolist()
    first = answers[0]
    assert first["trusted"] is True
    assert first["label"] == "PASS"
    assert [c["name"] for c in first["certificates"]] == ["constraint violation", "size"]
    assert first["certificates"][1]["pass_limit"] == 1e3


def test_a_solve_that_does_not_converge_fails_and_is_answered():
    with client(serving_models.layer(steps=1)) as server:
        [answer] = server.post("/solve", json={"inputs": [[5.0, -5.0, 5.0]]}).json()["answers"]
    assert answer["status"] == "MAX_STEPS"
    assert answer["label"] == "FAIL"
    assert answer["trusted"] is False
    assert "max_steps ran out" in answer["message"]


def test_health_and_description():
    with client() as server:
        assert server.get("/health").json() == {"status": "ok", "inside": 0, "queue": 64}
        described = server.get("/schema").json()
        assert described["inputs"] == {"shape": [3], "dtype": "float32"}
        assert described["most_samples"] == 64
        openapi = server.get("/openapi.json").json()
        assert set(openapi["paths"]) == {"/health", "/schema", "/solve"}
        assert server.get("/docs").status_code == 404  # its page loads scripts from elsewhere
        assert server.get("/solve").status_code == 405


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("\x80", "not JSON"),
        ("[" * 9_000, "not JSON"),
        ("[1]", "the body must be"),
        ("{}", "the body must be"),
        ('{"inputs": [[1, 2, 3]], "other": 1}', "the body must be"),
        ('{"inputs": [[1, 2, 3]], "x": 1}', "true or false"),
        ('{"inputs": []}', "list of samples"),
        ('{"inputs": 5}', "list of samples"),
        ('{"inputs": [[1, 2]]}', r"shape (B, 3) are needed; got (1, 2)"),
        ('{"inputs": [1, 2, 3]}', "are needed; got (3,)"),
        ('{"inputs": [[1, 2, 3], [1, 2]]}', "not all alike"),
        ('{"inputs": [["a", "b", "c"]]}', "must be numbers"),
        ('{"inputs": [[true, false, true]]}', "must be numbers"),
        ('{"inputs": [[null, 1, 2]]}', "must be numbers"),
        ('{"inputs": [[{}, 1, 2]]}', "must be numbers"),
        ('{"inputs": [[NaN, 1, 2]]}', "finite numbers; got NaN"),
        ('{"inputs": [[-Infinity, 1, 2]]}', "finite numbers; got -Infinity"),
        ('{"inputs": [[1e999, 1, 2]]}', "sample 0 has NaN or infinity"),
        ('{"inputs": [[1e39, 1, 2]]}', "sample 0 has NaN or infinity"),  # overflows float32
        ('{"inputs": [[' + "9" * 400 + ", 1, 2]]}", "must be numbers"),
        ('{"inputs": [[' + "9" * 5000 + ", 1, 2]]}", "not JSON"),
        ('{"inputs": [[101, 0, 0]]}', "at most 100"),  # the model's own rule
        ('{"inputs": ' + json.dumps([[0, 0, 0]] * 65) + "}", "at most 64 samples"),
    ],
)
def test_wrong_inputs_are_refused_with_a_sentence(body, message):
    with client() as server:
        reply = post(server, body.encode("latin-1"))
    assert reply.status_code == 422
    assert message in reply.json()["detail"]


def test_a_body_that_is_too_large_is_not_read():
    with client(limits=Limits(batch=1)) as server:
        most = server.get("/schema").json()["most_bytes"]
        assert post(server, b" " * most + b"{}").status_code == 413
        parts = iter([b" " * most, b" "])  # without a stated length
        reply = server.post("/solve", content=parts, headers={"content-type": "application/json"})
        assert reply.status_code == 413
        assert str(most) in reply.json()["detail"]
        assert post(server, b'{"inputs": [[0, 0, 0]]}').status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-pickle", ""])
def test_only_json_is_read(kind):
    with client() as server:
        assert post(server, b'{"inputs": [[0, 0, 0]]}', kind).status_code == 415


def test_a_foreign_name_is_refused():
    with client(hosts=("localhost",)) as server:
        assert server.get("/health").status_code == 400
        assert server.get("/health", headers={"host": "localhost:8000"}).status_code == 200


def test_a_slow_solve_is_ended_and_the_next_one_answered():
    layer = serving_models.layer()
    with client(layer, Limits(seconds=0.3)) as server:
        layer.model.pause = 60.0
        start = time.monotonic()
        reply = server.post("/solve", json={"inputs": [[0.0, 0.0, 0.0]]})
        assert time.monotonic() - start < 20
        assert reply.status_code == 504
        assert "0.3 seconds" in reply.json()["detail"]
        layer.model.pause = 0.0
        assert server.post("/solve", json={"inputs": [[0.0, 0.0, 0.0]]}).status_code == 200


def test_beyond_the_queue_requests_are_told_to_come_back():
    codes, layer = [], serving_models.layer(pause=1.5)
    with client(layer, Limits(queue=1)) as server:
        ask = lambda: codes.append(server.post("/solve", json={"inputs": [[0.0, 0.0, 0.0]]}).status_code)  # noqa: E731
        first = threading.Thread(target=ask)
        first.start()
        while server.get("/health").json()["inside"] == 0 and first.is_alive():
            time.sleep(0.01)
        refused = server.post("/solve", json={"inputs": [[0.0, 0.0, 0.0]]})
        first.join()
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert codes == [200]


def test_what_fails_inside_is_not_told_outside(monkeypatch, caplog):
    def fail(self, d):
        raise RuntimeError("secret")

    monkeypatch.setattr(serving_models.Nonnegative, "infer", fail)
    with client() as server:
        reply = server.post("/solve", json={"inputs": [[0.0, 0.0, 0.0]]})
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert "secret" in caplog.text


@pytest.mark.parametrize("name", ["batch", "seconds", "workers", "queue", "body"])
@pytest.mark.bad_input
def test_a_bound_is_positive(name):
    with pytest.raises(LimitError, match=f"needs {name} > 0; got {name}=0"):
        Limits(**{name: 0})


def test_the_loopback_is_told_from_other_addresses():
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "10.0.0.1", "example.org")] == [False] * 3
