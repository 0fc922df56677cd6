"""The OpenAPI document: what this server takes and answers, for the models that it serves."""

from __future__ import annotations

from typing import Any

import tasteloop
from serving.answering.users import LONGEST_USER
from serving.headers import TOKEN_HEADER
from serving.http import v2
from serving.http.admission import Admission
from serving.journal.answered import LONGEST_REQUEST_ID
from serving.journal.feedback import MOST_FEEDBACK
from tasteloop.answers import MOST_K, SERVED_MODELS
from tasteloop.behaviour.kinds import KINDS
from tasteloop.behaviour.times import LATEST, PER_UNIT, likely_range

Schema = dict[str, Any]
# among others
_MOMENT = r"^20\d\d-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ$"
# a number that is a time of our days in seconds, say, is refused as no microseconds
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


def document(admission: Admission) -> Schema:
    """OpenAPI 3.1 for one server's models, caps and tokens."""
    predictor = admission.live.current
    limits = predictor.limits
    models = list(admission.repository.get_models())
    paths: Schema = {
        "/": {"get": _get("Alive", _object(status={"const": "alive"}), "health", 403)},
        "/metrics": {"get": {**_get("Prometheus metrics", {}, "health", 401, 403), **_text()}},
        "/v1/models": {
            "get": _get(
                "Names of the models", _object(models=_list({"type": "string"})), "V1", 401, 403
            )
        },
        "/v2": {"get": _get("Server metadata", _ref("ServerMetadata"), "V2", 401, 403)},
        "/v2/models": {
            "get": _get(
                "Names of the models", _object(models=_list({"type": "string"})), "V2", 401, 403
            )
        },
        "/v2/health/live": {
            "get": _get("Alive", _object(live={"const": True}), "health", 403, 503)
        },
        "/v2/health/ready": {
            "get": _get(
                "Warm and taking requests", _object(ready={"const": True}), "health", 403, 503
            )
        },
    }
    name = {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": models},
    }
    ready = _get(
        "Whether a model is ready",
        _object(name={"type": "string"}, ready={"const": True}),
        "V2",
        400,
        401,
        403,
        404,
        503,
    )
    paths |= {
        "/v1/models/{model}": {"get": {**ready, "tags": ["V1"]}, "parameters": [name]},
        "/v2/models/{model}/ready": {"get": ready, "parameters": [name]},
        "/v2/models/{model}": {
            "get": _get("Model metadata", _ref("ModelMetadata"), "V2", 400, 401, 403, 404),
            "parameters": [name],
        },
    }
    for model in models:
        input = SERVED_MODELS[model].input
        answer = {
            "type": "object",
            "required": ["predictions", "model_version"],
            "properties": {
                "predictions": _list({"type": "object"}),
                "model_version": {"type": "string"},
            },
        }
        instances = {**_list(_ref(input.schema)), "minItems": 1, "maxItems": limits.instances}
        if "k" in input.options:
            instances |= _rows_within(limits)
        asked = _object(instances=instances)
        paths[f"/v1/models/{model}:predict"] = {"post": _post(f"Ask {model}", asked, answer, "V1")}
        paths[f"/v2/models/{model}/infer"] = {
            "post": _post(
                f"Ask {model} with tensors",
                _ref("InferenceRequest"),
                _ref("InferenceResponse"),
                "V2",
            )
        }
    paths["/v1/status"] = {
        "get": _get("What answers since when, and the journal", {"type": "object"}, "V1", 401, 403)
    }
    if admission.live.journal is not None:
        entries = {**_list(_ref("Outcome")), "minItems": 1, "maxItems": MOST_FEEDBACK}
        taken = _object(accepted={"type": "integer"})
        feedback = _post("What came of answers", _object(feedback=entries), taken, "V1")
        feedback["responses"]["202"] = feedback["responses"].pop("200")
        paths["/v1/feedback"] = {"post": feedback}
    security = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tasteloop",
            "version": tasteloop.__version__,
            "description": f"{', '.join(models)} over KServe's V1 and the Open Inference Protocol (V2). "
            f"A body has at most {admission.settings.body} bytes. Header x-request-timeout-ms: the milliseconds after "
            "which the caller does not wait any more. Header x-request-id names a request, here and in the answer.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(limits)}
        | ({"securitySchemes": security} if admission.access.asks else {}),
        **({"security": [{"token": []}]} if admission.access.asks else {}),
    }


def _schemas(limits: Any) -> Schema:
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
    return {
        "Error": _object(error={"type": "string"}),
        "Text": {**_object(text=text), "properties": {"text": text, "user": _USER}},
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
        "description": f"k ({', '.join(takes_k)}): how many to answer with; user: whom the question is about",
    }


def _rows_within(limits: Any) -> Schema:
    """Instances times the largest k is bounded, which a schema cannot say: few instances with any
    k, or any number of instances with a small one. What lies between is accepted too.
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


_SAID = {
    400: "The caller's mistake, in words",
    401: "No token, or one that is not known",
    403: "Not for this caller, or not under this host name",
    404: "No such model or version",
    408: "The body did not come in time",
    413: "The body is too large",
    415: "An encoding of the body that is not allowed; Accept-Encoding names those that are",
    429: "Too much waits; try again after the seconds of Retry-After",
    500: "Ours: an id, under which the log has the rest",
    503: "Not ready",
    504: "No answer before the deadline",
}


def _answers(good: Schema, *codes: int) -> Schema:
    error = {"application/json": {"schema": _ref("Error")}}
    answers: Schema = {
        "200": {"description": "OK", "content": {"application/json": {"schema": good}}}
    }
    answers |= {str(code): {"description": _SAID[code], "content": error} for code in (*codes, 500)}
    if "429" in answers:
        answers["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
    return answers


def _get(summary: str, good: Schema, tag: str, *codes: int) -> Schema:
    return {"summary": summary, "tags": [tag], "responses": _answers(good, *codes)}


def _text() -> Schema:
    answers = _answers({}, 401, 403)
    answers["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return {"responses": answers}


def _post(summary: str, asked: Schema, good: Schema, tag: str) -> Schema:
    return {
        "summary": summary,
        "tags": [tag],
        "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
        "responses": _answers(good, 400, 401, 403, 404, 408, 413, 415, 429, 503, 504),
    }
