"""The OpenAPI document: what this server takes and answers, for the models that it serves."""

from __future__ import annotations

from typing import Any

import tasteloop
from serving.headers import API_TOKEN_HEADER, TOKEN_HEADER
from serving.histories.events import LONGEST_ID, MOST_EVENTS
from serving.http import v2
from serving.http.admission import Admission
from serving.journal.answered import LONGEST_REQUEST_ID
from serving.journal.feedback import MOST_FEEDBACK
from serving.settings import Limits
from tasteloop.answers import LANGUAGES, MOST_K, SERVED_MODELS
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.times import LATEST, PER_UNIT, likely_range
from tasteloop.privacy.pseudonyms import LONGEST_USER

Schema = dict[str, Any]
"""A part of the document: JSON whose fields are OpenAPI's own."""

# One way among others to write a time.
_MOMENT = r"^20\d\d-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ$"
# A number that would be a time of our days in seconds, for example, is refused: it cannot be in
# microseconds.
_OTHER_UNITS = [
    {"minimum": low, "exclusiveMaximum": high}
    for low, high in (likely_range(unit) for unit in PER_UNIT if unit != "us")
]
_USER: Schema = {
    "type": ["string", "null"],
    "minLength": 1,
    "maxLength": LONGEST_USER,
    "description": "whom the question is about; a pseudonym before anything else sees it",
}

_LANGUAGE: Schema = {
    "enum": [*LANGUAGES, None],
    "description": f"in which reasons are told; {LANGUAGES[0]} where it is not named",
}


def document(admission: Admission) -> Schema:
    """OpenAPI 3.1 for one server's models, caps and tokens."""
    limits = admission.live.current.limits
    models = list(admission.repository.get_models())
    paths = _server_paths() | _metadata_paths(models)
    for model in models:
        paths |= _question_paths(model, limits)
    paths |= _status_and_feedback_paths(admission.live.journal is not None)
    components: Schema = {"schemas": _schemas(limits)}
    if admission.live.histories is not None:
        paths |= _history_paths()
        components["schemas"] |= _history_schemas(components["schemas"])
    description = (
        f"{', '.join(models)} over KServe's V1 and the Open Inference Protocol (V2). "
        f"A body has at most {admission.settings.body} bytes. Header x-request-timeout-ms: the milliseconds after "
        "which the caller does not wait any more. Header x-request-id names a request, here and in the answer."
    )
    openapi: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Tasteloop",
            "version": tasteloop.__version__,
            "description": description,
        },
        "paths": paths,
        "components": components,
    }
    if admission.access.needs_token:
        components["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer"},
            # behind a gateway that wants Authorization for a token of its own
            "header": {"type": "apiKey", "in": "header", "name": API_TOKEN_HEADER},
        }
        openapi["security"] = [{"token": []}, {"header": []}]
    return openapi


def _server_paths() -> Schema:
    """Probes, metrics, and what the server as a whole is."""
    names = _object(models=_list({"type": "string"}))
    live, ready = _object(live={"const": True}), _object(ready={"const": True})
    return {
        "/": {"get": _get("Alive", _object(status={"const": "alive"}), "health", 403)},
        "/metrics": {"get": {**_get("Prometheus metrics", {}, "health", 401, 403), **_text()}},
        "/v1/models": {"get": _get("Names of the models", names, "V1", 401, 403)},
        "/v2": {"get": _get("Server metadata", _ref("ServerMetadata"), "V2", 401, 403)},
        "/v2/models": {"get": _get("Names of the models", names, "V2", 401, 403)},
        "/v2/health/live": {"get": _get("Alive", live, "health", 403, 503)},
        "/v2/health/ready": {"get": _get("Warm and taking requests", ready, "health", 403, 503)},
    }


def _metadata_paths(models: list[str]) -> Schema:
    """Whether a model is ready, and its inputs and outputs."""
    name = {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": models},
    }
    readiness = _object(name={"type": "string"}, ready={"const": True})
    ready = _get("Whether a model is ready", readiness, "V2", 400, 401, 403, 404, 503)
    metadata = _get("Model metadata", _ref("ModelMetadata"), "V2", 400, 401, 403, 404)
    return {
        "/v1/models/{model}": {"get": {**ready, "tags": ["V1"]}, "parameters": [name]},
        "/v2/models/{model}/ready": {"get": ready, "parameters": [name]},
        "/v2/models/{model}": {"get": metadata, "parameters": [name]},
    }


def _question_paths(model: str, limits: Limits) -> Schema:
    """What is asked of one model, over V1 and V2."""
    input = SERVED_MODELS[model].input
    instances = {**_list(_ref(input.schema)), "minItems": 1, "maxItems": limits.instances}
    if "k" in input.options:
        instances |= _rows_within(limits)
    answer = {
        "type": "object",
        "required": ["predictions", "model_version"],
        "properties": {
            "predictions": _list({"type": "object"}),
            "model_version": {"type": "string"},
        },
    }
    predict = _post(f"Ask {model}", _object(instances=instances), answer, "V1")
    infer = _post(
        f"Ask {model} with tensors", _ref("InferenceRequest"), _ref("InferenceResponse"), "V2"
    )
    return {
        f"/v1/models/{model}:predict": {"post": predict},
        f"/v2/models/{model}/infer": {"post": infer},
    }


def _status_and_feedback_paths(has_journal: bool) -> Schema:
    """What the server answers beside the models; feedback only where there is a journal for it."""
    status = _get("What answers since when, and the journal", {"type": "object"}, "V1", 401, 403)
    paths: Schema = {"/v1/status": {"get": status}}
    if has_journal:
        entries = {**_list(_ref("Outcome")), "minItems": 1, "maxItems": MOST_FEEDBACK}
        accepted = _object(accepted={"type": "integer"})
        feedback = _post("What came of answers", _object(feedback=entries), accepted, "V1")
        feedback["responses"]["202"] = feedback["responses"].pop("200")
        paths["/v1/feedback"] = {"post": feedback}
    return paths


def _history_paths() -> Schema:
    """Events in, and a user's history out; the latter for the admin."""
    user = {
        "name": "user",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_USER},
    }
    key = {
        "name": "idempotency-key",
        "in": "header",
        "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_ID},
    }
    events = {**_list(_ref("UserEvent")), "minItems": 1, "maxItems": MOST_EVENTS}
    take = _post("Events of users", _object(events=events), {"type": "object"}, "V1")
    take["parameters"] = [key]
    answers = take["responses"]
    answers["202"] = answers.pop("200")
    error = answers["400"]["content"]
    for code in (409, 507):
        answers[str(code)] = {"description": _DESCRIPTIONS[code], "content": error}
    codes = (400, 401, 403, 501, 503, 504)
    show = _get("What is stored of a user", {"type": "object"}, "V1", *codes)
    erase = _get("Forget a user", {"type": "object"}, "V1", *codes, 429, 507)
    return {
        "/v1/events": {"post": take},
        "/v1/users/{user}": {"parameters": [user], "get": show, "delete": erase},
    }


def _history_schemas(schemas: Schema) -> Schema:
    """The schemas that histories add or change: with a user, a question needs no events."""
    name: Schema = {"type": ["string", "null"], "minLength": 1, "maxLength": LONGEST_ID}
    event = schemas["Event"]
    history = schemas["History"]
    with_id = {**event, "properties": {**event["properties"], "id": name}}
    stored = {
        **history,
        "required": ["user"],
        "properties": {
            **history["properties"],
            "events": {**history["properties"]["events"], "items": _ref("SentEvent")},
            "user": {**_USER, "type": "string"},
            "min_seq": {"type": "integer", "minimum": 0},
        },
    }
    user_event = {
        **with_id,
        "required": ["user", "kind"],
        "properties": {**with_id["properties"], "user": _USER},
    }
    return {
        "SentEvent": with_id,
        "UserEvent": user_event,
        "History": {"anyOf": [history, stored]},
    }


def _schemas(limits: Limits) -> Schema:
    """The schemas that paths refer to, by name."""
    # 1. events and their fields
    visible = r"[^\s\u001c-\u001f\u0085]"  # engines differ in what else they call a space
    text = {"type": "string", "pattern": visible, "maxLength": limits.characters}
    event: Schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["kind"],
        "properties": {
            "kind": {"enum": list(KINDS)},
            "item": {"anyOf": [text, {"type": "null"}]},
            "text": {"anyOf": [text, {"type": "null"}]},
            "value": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "time": {
                "description": "ISO 8601, or microseconds since 1970 UTC",
                "anyOf": [
                    {"type": "string", "pattern": _MOMENT},
                    {
                        "type": "integer",
                        "minimum": 0,
                        "maximum": LATEST,
                        "not": {"anyOf": _OTHER_UNITS},
                    },
                    {"type": "null"},
                ],
            },
        },
    }

    # 2. tensors
    parameters = _parameters()
    tensor = {
        "name": {"type": "string"},
        "shape": _list({"type": "integer"}),
        "datatype": {"enum": v2.DATATYPES},
    }
    request_input = {
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "shape", "datatype"],
        "properties": {
            **tensor,
            "parameters": parameters,
            "data": {
                "type": "array",
                "description": "row-major; absent with parameters.binary_data_size",
            },
        },
    }
    named = {"name": {"type": "string"}, "parameters": parameters}

    # 3. bodies
    return {
        "Error": _object(error={"type": "string"}),
        "Text": {
            **_object(text=text),
            "properties": {"text": text, "language": _LANGUAGE, "user": _USER},
        },
        "Event": event,
        "Outcome": {
            "type": "object",
            "additionalProperties": False,
            "required": ["request", "token", "kind"],
            "properties": {
                "request": {"type": "string", "minLength": 1, "maxLength": LONGEST_REQUEST_ID},
                "token": {"type": "string", "description": f"the answer's {TOKEN_HEADER}"},
                "instance": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
                **{name: event["properties"][name] for name in ("kind", "item", "value", "time")},
            },
        },
        "History": {
            "type": "object",
            "additionalProperties": False,
            "required": ["events"],
            "properties": {
                "events": {**_list(_ref("Event")), "maxItems": limits.events},
                "k": {"type": ["integer", "null"], "minimum": 1, "maximum": MOST_K},
                "language": _LANGUAGE,
                "against": {
                    "type": ["boolean", "null"],
                    "description": "whether what speaks against each recommendation is told too",
                },
                "user": _USER,
            },
        },
        "InferenceRequest": {
            "type": "object",
            "additionalProperties": False,
            "required": ["inputs"],
            "properties": {
                "id": {"type": "string"},
                "parameters": parameters,
                "inputs": {**_list(request_input), "minItems": 1, "maxItems": 1},
                "outputs": _list(
                    {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["name"],
                        "properties": named,
                    }
                ),
            },
        },
        "InferenceResponse": {
            "type": "object",
            "required": ["id", "model_name", "model_version", "outputs"],
            "properties": {
                "id": {"type": "string"},
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "outputs": _list(
                    {
                        "type": "object",
                        "required": ["name", "shape", "datatype"],
                        "properties": {**tensor, "data": {"type": "array"}},
                    }
                ),
            },
        },
        "ServerMetadata": _object(
            name={"type": "string"},
            version={"type": "string"},
            extensions=_list({"type": "string"}),
        ),
        "ModelMetadata": {
            "type": "object",
            "required": ["name", "versions", "platform", "inputs", "outputs"],
            "properties": {
                "name": {"type": "string"},
                "versions": _list({"type": "string"}),
                "platform": {"type": "string"},
                **{side: _list(_object(**tensor)) for side in ("inputs", "outputs")},
            },
        },
    }


def _parameters() -> Schema:
    takes_k = [name for name, model in SERVED_MODELS.items() if "k" in model.input.options]
    return {
        "type": "object",
        "additionalProperties": {"type": ["string", "number", "boolean"]},
        "description": (
            f"k ({', '.join(takes_k)}): how many to answer with; language, against: as in a history; "
            "user: whom the question is about"
        ),
    }


def _rows_within(limits: Limits) -> Schema:
    """Instances times the largest k is bounded, which a schema cannot say. It says what is always
    accepted: few instances with any k, or any number of instances with a small one. The server also
    accepts what lies between.
    """
    small = {"items": {"properties": {"k": {"maximum": max(1, limits.rows // limits.instances)}}}}
    return {"anyOf": [{"maxItems": max(1, limits.rows // MOST_K)}, small]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


_DESCRIPTIONS = {
    400: "The caller's mistake, in words",
    401: "No token, or one that is not known",
    403: "Not for this caller, or not under this host name",
    404: "No such model or version",
    408: "The body did not come in time",
    409: "This key came before with another body, or the history has not reached min_seq",
    413: "The body is too large",
    415: "An encoding of the body that is not allowed; Accept-Encoding names those that are",
    429: "Too much waits; try again after the seconds of Retry-After",
    500: "Ours: an id, under which the log has the rest",
    501: "Not offered by this server",
    503: "Not ready",
    504: "No answer before the deadline",
    507: "The store of histories has no room",
}


def _responses(schema: Schema, *codes: int) -> Schema:
    """The response with that schema, and an error for each of the codes."""
    error = {"application/json": {"schema": _ref("Error")}}
    responses: Schema = {
        "200": {"description": "OK", "content": {"application/json": {"schema": schema}}}
    }
    for code in (*codes, 500):
        responses[str(code)] = {"description": _DESCRIPTIONS[code], "content": error}
    if "429" in responses:
        responses["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return responses


def _get(summary: str, schema: Schema, tag: str, *codes: int) -> Schema:
    return {"summary": summary, "tags": [tag], "responses": _responses(schema, *codes)}


def _text() -> Schema:
    responses = _responses({}, 401, 403)
    responses["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return {"responses": responses}


def _post(summary: str, body: Schema, schema: Schema, tag: str) -> Schema:
    return {
        "summary": summary,
        "tags": [tag],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": _responses(schema, 400, 401, 403, 404, 408, 413, 415, 429, 503, 504),
    }
