from importlib.metadata import entry_points, version

import pytest

ENTRY_POINTS = {
    "store-cookie": "sojourn_store_cookie",
    "store-redis": "sojourn_store_redis",
    "store-clustered-redis": "sojourn_store_redis",
    "store-sql": "sojourn_store_sql",
    "metrics-opentelemetry": "sojourn_metrics_opentelemetry",
    "metrics-statsd": "sojourn_metrics_statsd",
}


@pytest.mark.parametrize("name", sorted(ENTRY_POINTS))
def test_each_plugin_is_found_by_its_entry_point(name):
    found = {point.value for point in entry_points(group="sojourn", name=name)}
    assert found == {ENTRY_POINTS[name]}


def test_all_distributions_carry_one_version():
    names = [
        "sojourn",
        "sojourn-cli",
        "sojourn-contrib-aiohttp",
        "sojourn-contrib-azu-like",
        "sojourn-contrib-django",
        "sojourn-contrib-fastapi",
        "sojourn-contrib-flask",
        "sojourn-contrib-litestar",
        "sojourn-contrib-migrate",
        "sojourn-metrics-opentelemetry",
        "sojourn-metrics-statsd",
        "sojourn-store-cookie",
        "sojourn-store-redis",
        "sojourn-store-sql",
        "sojourn-testing",
    ]
    assert len({version(name) for name in names}) == 1
