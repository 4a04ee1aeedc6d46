"""What is a secret and what only looks like one; the formats are those that the services document."""

from __future__ import annotations

import sys
from io import BytesIO, StringIO, TextIOWrapper

import pytest
import typer

from sweepkit.study import secrets
from sweepkit.study.files import first_line
from sweepkit.study.secrets import HIDDEN, hide, learn, lost, reveal, scrub
from sweepkit.study.streams import scrub_output

S = "Zq8vK2mX7tRw4Yb1"
LONG = "aB3" * 14
SECRETS = [
    f"tool --password {S} --user ann",
    f"--api-key={S}",
    f"Authorization: Token {S}",
    f"Authorization: Basic {S}==",
    f'{{"password": "{S}"}}',
    f'{{\\"api_key\\": \\"{S}\\"}}',
    f"{{'headers': {{'Authorization': 'Bearer {S}'}}}}",
    f"https://x.y/z?password={S}&a=1",
    f"http://{S}@host/x",
    f"https://acc.blob.core.windows.net/x?sv=2020&sig={S}%3D",
    f"https://b.s3.amazonaws.com/k?X-Amz-Signature={S}&X-Amz-Credential={S}",
    f"https://hooks.slack.com/services/T00000000/B00000000/{S}abcdefgh",
    f"password='{S} and more words'",
    f"PGPASSWORD={S}",
    f"postgresql://ann:{S}@db/x",
    f"curl -u ann:{S} https://x",
    f"AccountKey={S}==;EndpointSuffix",
    f"Endpoint=sb://x/;SharedAccessKey={S}=",
    f"https://maps.googleapis.com/x?q=a&key={S}",
    f"https://discord.com/api/webhooks/123456/{S}",
    f"https://org.webhook.office.com/webhookb2/{S}@11111111/IncomingWebhook/{S}/x",
    f"client_secret={S}",
    f"Bearer {S}",
]
KEYS = [
    *("ASIAABCDEFGH12345678", "AKIAABCDEFGH12345678", f"npm_{LONG[:36]}", f"r8_{LONG[:37]}", f"SG.{LONG[:22]}.{LONG}"),
    *(f"ya29.{LONG}", f"hf_{LONG[:34]}", f"sk-ant-api03-{LONG}", f"sk_live_{LONG[:24]}", f"glpat-{LONG[:20]}"),
    *(f"xapp-1-A1-{LONG}", f"xoxb-{LONG}", f"dckr_pat_{LONG[:27]}", f"ghp_{LONG[:36]}", f"AIza{LONG[:35]}"),
    "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSM",
]
HARMLESS = [
    "learning_rate=3e-5 max_new_tokens: 128 pad_token: [PAD]",
    "https://huggingface.co/bert-base-uncased/resolve/main/config.json",
    "/home/ann/secret-project/data.csv",
    "tokens per second: 12345, --num-tokens 512, per_token_loss: 0.5",
    "second_pass=forward first_pass: backward https://x.y/z?key=label&sort=1",
    "the token type ids are missing; tokenizer=bert-base",
    "git@github.com:org/repo.git at 3f2a9c1b7d8e9f0a1b2c3d4e5f60718293a4b5c6",
]


@pytest.mark.parametrize("text", SECRETS, ids=range(len(SECRETS)))  # pytest puts ids into the environment
def test_a_secret_is_hidden_wherever_it_stands(text: str) -> None:
    hidden = scrub(text)
    assert S not in hidden and HIDDEN in hidden
    assert scrub(hidden) == hidden


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("SMTP_PASS", S), ("SSHPASS", S), ("KAGGLE_KEY", S), ("POSTGRES_PASSWORD", S), ("MYSQL_PWD", S)),
        *(("DATABASE_URL", f"postgresql://db/x?user=ann&password={S}"), ("FEED", f"https://x.y/z?token={S}#top")),
    ],
)
def test_a_variables_secret_is_hidden_where_it_stands_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert scrub(f"refused: {S}, sorry") == f"refused: {HIDDEN}, sorry"


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_known_by_their_format(key: str) -> None:
    assert scrub(f"refused: {key}, sorry") == f"refused: {HIDDEN}, sorry"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert scrub(text) == text


@pytest.mark.parametrize(
    ("value", "text", "scrubbed"),
    [
        ("opaque-77aa88bb", "xopaque-77aa88bby", "x***y"),
        ("qwertyuiopasdfgh", "xqwertyuiopasdfghy", "x***y"),
        ("sesameopen", "sesameopen sesameopens (sesameopen)", "*** sesameopens (***)"),
        ("hunter2", "hunter2 in xhunter2, k_hunter2", "*** in xhunter2, k_***"),
        (
            "train",
            "train on train.csv, MY_TOKEN=train, my-token: train",
            "train on train.csv, MY_TOKEN=***, my-token: ***",
        ),
        ("a", "a banana, MY_TOKEN=a, MY_TOKEN=ab, --my-token a", "a banana, MY_TOKEN=***, MY_TOKEN=ab, --my-token ***"),
        ("12345678", "12345678 rows", "12345678 rows"),
    ],
)
def test_the_shorter_a_value_the_more_must_show_that_it_is_meant(
    monkeypatch: pytest.MonkeyPatch, value: str, text: str, scrubbed: str
) -> None:
    monkeypatch.setenv("MY_TOKEN", value)
    assert scrub(text) == scrubbed


def test_what_a_study_calls_secret_is_hidden_where_it_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_learned", {})
    learn({"task": {"api_key": S, "size": 3}, "storage": "postgresql://ann:p/w@rd-5f6c@db/x"})
    assert scrub(f"refused: {S} or p/w@rd-5f6c, size 3") == f"refused: {HIDDEN} or {HIDDEN}, size 3"


def test_what_a_study_calls_secret_is_hidden_and_comes_back_from_the_same_study() -> None:
    whole = {
        "task": {
            "api_key": "k",
            "service": {"password": "p", "retries": 3, "pad_token": "[PAD]"},
            "endpoints": ["https://ann:pw@host/x?sig=abcdefgh&v=1", "https://host"],
            "prompt": "token: one of ***",
        }
    }
    hidden = hide(whole)
    assert hidden == {
        "task": {
            "api_key": HIDDEN,
            "service": {"password": HIDDEN, "retries": 3, "pad_token": "[PAD]"},
            "endpoints": [f"https://ann:{HIDDEN}@host/x?sig={HIDDEN}&v=1", "https://host"],
            "prompt": "token: one of ***",
        }
    }
    assert reveal(hidden, whole) == whole
    assert list(lost(hidden, whole)) == []
    moved = {"task": {**whole["task"], "endpoints": ["https://ann:pw@elsewhere", "https://host"]}}
    assert list(lost(hidden, moved)) == ["task.endpoints.0"]


class _Terminal(StringIO):
    """A stream that is written line by line."""

    line_buffering = True


@pytest.mark.parametrize("kind", [StringIO, _Terminal])
def test_output_is_scrubbed_line_by_line_however_it_is_written(
    kind: type[StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "opaque-77aa88bb")
    kept = kind()
    monkeypatch.setattr(sys, "stdout", kept)
    monkeypatch.setattr(sys, "stderr", StringIO())
    scrub_output()
    for part in ("password:", " ", S, " opaque-", "77aa88bb", "\n"):
        sys.stdout.write(part)
    sys.stdout.writelines(["opaque-77", "aa88bb\n"])
    sys.stdout.write("no end opaque-77aa88bb")
    sys.stdout.flush()
    assert kept.getvalue() == "password: *** ***\n***\nno end ***"


def test_bytes_are_scrubbed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "opaque-77aa88bb")
    kept = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(kept, "ascii"))
    monkeypatch.setattr(sys, "stderr", StringIO())
    scrub_output()
    sys.stdout.write("first ")
    sys.stdout.buffer.write(b"opaque-77aa88bb \xff\n")
    typer.echo("gr\xf6\xdfe opaque-77aa88bb")
    sys.stdout.flush()
    assert kept.getvalue() == b"first *** \xff\n" + "gr\xf6\xdfe ***\n".encode()


def test_a_line_without_end_is_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = StringIO()
    monkeypatch.setattr(sys, "stdout", kept)
    monkeypatch.setattr(sys, "stderr", StringIO())
    scrub_output()
    for _ in range(100):
        sys.stdout.write("x" * 10_000)
    assert len(kept.getvalue()) > 900_000
    sys.stdout.write("y\n")
    sys.stdout.flush()
    assert kept.getvalue() == f"{'x' * 1_000_000}y\n"


def test_the_message_of_an_exception_is_scrubbed_where_it_is_taken() -> None:
    assert first_line(ConnectionError(f"401 for https://x/?token={S}")) == "401 for https://x/?token=***"
