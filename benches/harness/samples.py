"""Policies of an exact size, as files that `store --import` reads: DIR/TENANT/POLICY.json."""

import json

POLICIES_PER_TENANT = 1000
POLICY_BYTES = 600


def policy(policy_id, size=POLICY_BYTES):
    document = {
        "policy_id": policy_id,
        "version": "1.0",
        "weights": {"openai:gpt-4o": 0.6, "anthropic:claude-3-5-sonnet": 0.3, "local:llama-3-8b": 0.1},
        "fallbacks": [
            {"when": {"status": ["timeout", "5xx"]}, "retry": 2, "to": "anthropic:claude-3-5-sonnet"},
            {"when": {"status": ["rate_limited"]}, "retry": 1, "to": "local:llama-3-8b"},
        ],
        "sticky": {"enabled": True, "session_key": "user_id", "ttl": "10m"},
        "metadata": {"description": ""},
    }
    missing = size - len(json.dumps(document))
    document["metadata"]["description"] = "x" * missing
    text = json.dumps(document)
    assert len(text) == size, f"a policy cannot be {size} bytes: {len(text)}"
    return text


def two_providers(**more):
    """A policy of two weighted providers."""
    providers = [{"name": "openai", "weight": 70}, {"name": "anthropic", "weight": 30}]
    return json.dumps({"version": "1.0", "providers": providers, **more})


def decide_request(tenant, policy_id, **metadata):
    """The body of a request for a decision."""
    task = {"type": "chat", "payload": {"text": "How do I change my plan?"}}
    request = {"version": "1", "request_id": "req-0000001", "tenant_id": tenant, "policy_id": policy_id, "task": task}
    return json.dumps({**request, "metadata": metadata} if metadata else request)


def names(count):
    """Tenant and policy of each of `count` policies."""
    for number in range(count):
        yield f"tenant-{number // POLICIES_PER_TENANT:03}", f"policy-{number % POLICIES_PER_TENANT:04}"


def path(tenant, policy_id):
    return f"/api/v1/policies/{tenant}/{policy_id}"


def last_path(count):
    *_, last = names(count)
    return path(*last)


def write(folder, count):
    for tenant, policy_id in names(count):
        (folder / tenant).mkdir(exist_ok=True)
        (folder / tenant / f"{policy_id}.json").write_text(policy(policy_id))
    return folder
