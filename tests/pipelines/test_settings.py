"""Settings: every profile loads, nothing unknown passes, an override changes one thing."""

from __future__ import annotations

import re

import pytest
import yaml
from pydantic import ValidationError

from pipelines.settings import MONITORING, Settings, load_settings, profiles
from tasteloop.errors import TasteloopError


def test_the_profiles_are_those_that_are_documented():
    assert profiles() == ["cluster", "local", "mpnet", "smoke"]


@pytest.mark.parametrize("profile", profiles())
def test_every_profile_loads_and_survives_a_round_trip(profile):
    settings = load_settings(profile)
    assert settings.profile == profile
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
    for section in (
        "ingest",
        "validation",
        "prepare",
        "training",
        "recommender",
        "evaluation",
        "gate",
        *MONITORING,
    ):
        value = getattr(settings, section)
        assert type(value).model_validate_json(value.model_dump_json()) == value


def test_only_the_cluster_profile_asks_for_a_cluster():
    assert load_settings("cluster").cluster is not None
    assert load_settings("local").cluster is None
    assert load_settings("mpnet").cluster is None
    assert load_settings("smoke").cluster is None


def test_a_run_records_no_webhook_and_nothing_that_only_the_monitor_reads():
    settings = load_settings(
        "smoke",
        [
            "alerts.webhook=https://hooks.example/secret",
            "decision.severity.labels={watch: 1, act: 2}",
        ],
    )
    assert settings.decision.severity["labels"].act == 2
    assert settings.decision.severity["kinds"] == load_settings("smoke").decision.severity["kinds"]
    assert "secret" not in str(settings.of_training())
    assert set(settings.model_dump()) - set(settings.of_training()) == set(MONITORING)


def test_settings_are_frozen():
    settings = load_settings("smoke")
    with pytest.raises(ValidationError):
        settings.profile = "other"
    with pytest.raises(ValidationError):
        settings.ingest.max_users = 3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("ingest.max_user=3", "unknown setting 'ingest.max_user'; did you mean max_users?"),
        ("ingset.max_users=3", "unknown setting 'ingset'; did you mean ingest?"),
        ("ingest.cleaning.min_user_event=3", "'ingest.cleaning.min_user_event'"),
        ("zzz=3", "known: profile, built_on, ingest"),
        ("base=local", "choose another with --profile"),
        ("cluster.finetune.gpus=3", "'cluster.finetune.gpus'; did you mean gpu"),
        ("ingest.max_users=many", "ingest.max_users = 'many'"),
        ("ingest.max_users", "not of the form"),
        ("cluster.monitor.nodes=2", "'cluster.monitor.nodes'"),  # it trains in its own pod
        ("=3", "not of the form"),
        ("ingest.max_users=[", "not a YAML value"),
    ],
)
def test_a_wrong_override_is_named(override, said):
    with pytest.raises(TasteloopError, match="--set") as caught:
        load_settings("smoke", [override])
    assert said in str(caught.value)


def test_an_override_changes_one_setting_and_keeps_the_rest():
    before, after = (
        load_settings("smoke"),
        load_settings("smoke", ["ingest.max_users=7", "ingest.cleaning.min_user_events=2"]),
    )
    assert after.ingest.max_users == 7
    assert after.ingest.cleaning.min_user_events == 2
    assert after.ingest.max_reviews == before.ingest.max_reviews
    assert after.training == before.training


def test_an_override_of_one_floor_keeps_the_other_floors():
    before = load_settings("local").gate.floors
    after = load_settings("local", ["gate.floors.sentiment.accuracy=0.99"]).gate.floors
    assert after == {**before, "sentiment.accuracy": 0.99}


@pytest.mark.parametrize("profile", profiles())
def test_no_profile_asks_an_absolute_floor_of_any_data(profile):
    gate = load_settings(profile).gate
    assert not gate.floors
    assert not gate.slice_floors


@pytest.mark.parametrize("profile", ["local", "cluster", "mpnet"])
def test_the_floors_of_a_profile_belong_to_sources_that_can_be_ingested(profile):
    gate, ingest = load_settings(profile).gate, load_settings(profile).ingest
    assert set(gate.sources) <= {ingest.behaviour, *ingest.review_sources}
    assert gate.sources["ml-100k"].floors["recommend.ndcg@10"] == 0.1


@pytest.mark.parametrize("profile", ["local", "cluster", "mpnet"])
def test_precision_recall_and_f1_are_compared_with_baselines_and_with_the_champion(profile):
    gate = load_settings(profile).gate
    compared = {rule.metric for rule in (*gate.beats, *gate.at_least)}
    named = {f"sentiment.{measure}" for measure in ("precision", "recall", "f1")}
    named |= {"interests.precision", "interests.recall", "interests.micro_f1"}
    named |= {"recommend.ndcg@10", "recommend.precision@10", "recommend.f1@10"}
    assert named <= compared
    assert named <= set(gate.not_worse)


@pytest.mark.parametrize(("text", "value"), [("null", None), ("12", 12)])
def test_an_override_is_read_as_yaml(text, value):
    assert load_settings("smoke", [f"ingest.max_reviews={text}"]).ingest.max_reviews == value


def test_a_file_of_ones_own_is_a_profile_and_its_unknown_keys_are_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("ingest: {max_users: 9}\n")
    assert load_settings(str(path)).profile == "mine"
    assert load_settings(str(path)).ingest.max_users == 9
    path.write_text("ingest: {max_usres: 9}\n")
    with pytest.raises(TasteloopError, match="'ingest.max_usres'; did you mean max_users"):
        load_settings(str(path))


def test_mpnet_is_local_but_for_how_it_trains():
    local, mpnet = load_settings("local"), load_settings("mpnet")

    same = {"profile": "local", "built_on": (), "training": local.training}
    assert mpnet.model_copy(update=same) == local
    assert mpnet.built_on == ("local",)
    changed = {key for key, value in mpnet.training if value != getattr(local.training, key)}
    assert changed == {"encoder", "frozen_layers", "learning_rate", "cache_megabytes"}


def test_what_differs_from_the_base_replaces_it_and_mappings_are_joined(tmp_path):
    (tmp_path / "below.yaml").write_text(
        "base: smoke\n"
        "ingest: {max_users: 9, max_reviews: 8}\n"
        "gate: {floors: {a: 0.1, b: 0.2}, not_worse: [a, b]}\n"
    )
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: below.yaml\ningest: {max_reviews: null}\ngate: {floors: {b: 0.3}, not_worse: [b]}\n"
    )

    settings = load_settings(str(path))

    assert settings.profile == "mine"
    assert settings.built_on == ("below", "smoke")
    assert (settings.ingest.max_users, settings.ingest.max_reviews) == (9, None)
    assert settings.gate.floors == {"a": 0.1, "b": 0.3}
    assert settings.gate.not_worse == ("b",)
    assert settings.recommender == load_settings("smoke").recommender


def test_resolved_settings_are_a_profile_and_take_nothing_from_the_base_again(tmp_path):
    resolved = load_settings("mpnet", ["gate.sources={}", "training.encoder=minilm"])
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(resolved.model_dump(mode="json")))

    assert load_settings(str(path)) == resolved


@pytest.mark.parametrize(
    ("below", "base", "said"),
    [
        ("{}", "tiny", r"mine\.yaml: base: no profile 'tiny'; known: cluster, local"),
        ("{}", "none.yaml", r"mine\.yaml: base: no profile 'none\.yaml'"),
        ("{}", "[local, smoke]", r"mine\.yaml: base = \['local', 'smoke'\]; it is the name of one"),
        ("{}", "mine.yaml", "circle: mine -> mine"),
        ("base: mine.yaml", "below.yaml", "circle: mine -> below -> mine"),
        (
            "ingest: {max_usres: 9}",
            "below.yaml",
            r"below\.yaml: unknown setting 'ingest.max_usres'",
        ),
    ],
)
def test_a_base_that_cannot_be_built_on_is_refused(tmp_path, below, base, said):
    (tmp_path / "below.yaml").write_text(below)
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: {base}\n")
    with pytest.raises(TasteloopError, match=said):
        load_settings(str(path))


def test_a_mistyped_base_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("bsae: local\n")
    with pytest.raises(TasteloopError, match="unknown setting 'bsae'; did you mean base"):
        load_settings(str(path))


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "\xff"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TasteloopError, match=r"mine\.yaml"):
        load_settings(str(path))


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(
        TasteloopError, match="no profile 'tiny'; known: cluster, local, mpnet, smoke"
    ):
        load_settings("tiny")


@pytest.mark.parametrize(
    "override",
    [
        "cluster.light.memory=2GB",
        "cluster.light.cpu=two",
        "cluster.light.timeout=0",
        "cluster.user=0",
        "cluster.volume=Tasteloop_Home",
        "cluster.root=bucket/path",
        "cluster.secrets={TOKEN: hunter2}",
        "cluster.heavy.tolerations=[{key: a, operator: Maybe}]",
    ],
)
def test_what_kubernetes_would_refuse_is_refused_before(override):
    with pytest.raises(TasteloopError, match=override.partition("=")[0]):
        load_settings("cluster", [override])


@pytest.mark.parametrize("profile", profiles())
def test_no_profile_holds_a_secret(profile):
    values = load_settings(profile).model_dump(mode="json")
    references = (values["cluster"] or {}).pop("secrets", {})
    # where it is, not what it is
    assert all(re.fullmatch(r"[a-z-]+/[a-z-]+", place) for place in references.values())
    text = yaml.safe_dump(values).lower()
    assert not any(word in text for word in ("password", "secret_", "token:", "pseudonym_key"))
