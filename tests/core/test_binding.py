"""Nobody who is not trusted can say where a request came from, and fingerprints tell different senders apart."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sojourn.binding import FINGERPRINT_BYTES, HOP_LIMIT, LABEL_LENGTH, Binding, Client, TrustedProxies, parse_address
from sojourn.errors import ConfigurationError
from tests.steps import Counted

KEY = b"k" * 32
PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:1::/48"])
PROXY = "10.0.0.1"
TRUSTED = [ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48")]

addresses = st.ip_addresses().map(str)
trusted = st.one_of(st.ip_addresses(network="10.0.0.0/8"), st.ip_addresses(network="2001:db8:1::/48")).map(str)
strangers = addresses.filter(
    lambda text: not text.lower().startswith("::ffff:") and not any(ip_address(text) in network for network in TRUSTED)
)
junk = st.text(st.sampled_from('for=",;[]:.%10_ ') | st.characters(), max_size=60)
headers = st.lists(junk | addresses, max_size=4)


def written(address: str, *, header: str) -> str:
    """Write an address as a proxy does."""
    if header == "x_forwarded_for":
        return address
    return f'for="[{address}]"' if ":" in address else f"for={address}"


header_names = st.sampled_from(["x_forwarded_for", "forwarded"])


@given(peer=strangers, x_forwarded_for=headers, forwarded=headers)
def test_r31_a_peer_that_is_not_trusted_never_influences_its_address(
    peer: str, x_forwarded_for: list[str], forwarded: list[str]
) -> None:
    assert PROXIES.address(peer, x_forwarded_for, forwarded) == peer


@given(peer=addresses, x_forwarded_for=headers, forwarded=headers)
def test_r31_without_trusted_proxies_the_peer_is_the_client(
    peer: str, x_forwarded_for: list[str], forwarded: list[str]
) -> None:
    assert TrustedProxies().address(peer, x_forwarded_for, forwarded) == str(parse_address(peer))


@given(
    header=header_names,
    forged=headers,
    joined=st.booleans(),
    client=strangers,
    hops=st.lists(trusted, max_size=4),
    peer=trusted,
)
def test_r31_what_a_client_forges_left_of_its_own_address_changes_nothing(
    header: str, forged: list[str], joined: bool, client: str, hops: list[str], peer: str
) -> None:
    added = [written(address, header=header) for address in (client, *hops)]
    values = [", ".join([*forged, *added])] if joined else [*forged, *added]
    arguments: dict[str, Any] = {header: values}
    assert PROXIES.address(peer, **arguments) == client


@given(header=header_names, client=strangers, forged=headers)
def test_r31_a_forged_second_header_never_brings_the_address_it_names(
    header: str, client: str, forged: list[str]
) -> None:
    other = "forwarded" if header == "x_forwarded_for" else "x_forwarded_for"
    arguments: dict[str, Any] = {header: [written(client, header=header)], other: forged}
    assert PROXIES.address(PROXY, **arguments) in {client, PROXY}


@given(peer=st.none() | junk | addresses, x_forwarded_for=headers, forwarded=headers, unix=st.booleans())
def test_r31_any_header_is_read_without_an_error_and_gives_an_address_or_none(
    peer: str | None, x_forwarded_for: list[str], forwarded: list[str], unix: bool
) -> None:
    found = TrustedProxies([PROXY, "unix"] if unix else [PROXY]).address(peer, x_forwarded_for, forwarded)
    assert found is None or str(ip_address(found)) == found


@pytest.mark.parametrize(
    ("peer", "x_forwarded_for", "client"),
    [
        (PROXY, [], PROXY),
        (PROXY, ["  "], PROXY),
        (PROXY, ["203.0.113.9"], "203.0.113.9"),
        (PROXY, ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        (PROXY, ["1.1.1.1", "203.0.113.9, 10.2.2.2"], "203.0.113.9"),
        (PROXY, ["203.0.113.9:50000"], "203.0.113.9"),
        (PROXY, ["[2001:db8::9]:443"], "2001:db8::9"),
        (PROXY, ["2001:DB8::9"], "2001:db8::9"),
        (PROXY, ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("2001:db8:1::1%eth0", ["203.0.113.9"], "203.0.113.9"),
        (PROXY, ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        (PROXY, ["203.0.113.9, unknown"], PROXY),
        (PROXY, ["203.0.113.9, unknown, 10.2.2.2"], "10.2.2.2"),
        (PROXY, ["203.0.113.9, "], PROXY),
        (PROXY, ["203.0.113.9, 1.2.3.4.5"], PROXY),
        (PROXY, ["203.0.113.9, " + "1" * 100], PROXY),
        ("203.0.113.1", ["198.51.100.1"], "203.0.113.1"),
        ("testclient", ["203.0.113.9"], None),
        ("9" * 100, ["203.0.113.9"], None),
        (None, ["203.0.113.9"], None),
        ("", ["203.0.113.9"], None),
    ],
)
def test_r31_x_forwarded_for_is_counted_from_the_right(
    peer: str | None, x_forwarded_for: list[str], client: str | None
) -> None:
    assert PROXIES.address(peer, x_forwarded_for) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["for=203.0.113.9"], "203.0.113.9"),
        (["for=1.1.1.1, FOR=203.0.113.9;proto=https;by=10.0.0.1"], "203.0.113.9"),
        (['for="203.0.113.9:8080"'], "203.0.113.9"),
        (["for=203.0.113.9:8080"], "203.0.113.9"),
        (['proto=https; for="[2001:db8::9]:443" ;host="a.example:8000"'], "2001:db8::9"),
        (["for=[2001:db8::9]"], "2001:db8::9"),
        (['for="1.1.1.1', "for=203.0.113.9"], "203.0.113.9"),
        (['for=1.1.1.1;x=", for=203.0.113.9'], "203.0.113.9"),
        (["for=203.0.113.9, for=10.2.2.2"], "203.0.113.9"),
        (["for=10.3.3.3, for=10.2.2.2"], "10.3.3.3"),
        (["for=unknown"], PROXY),
        (["for=_hidden"], PROXY),
        (['for=""'], PROXY),
        (["proto=https"], PROXY),
        (["for=203.0.113.9;for=1.1.1.1"], PROXY),
        (["for=203.0.113.9;"], PROXY),
        (["for=203.0.113.9 proto=https"], PROXY),
        (['for=203.0.113.9;host=";for=1.1.1.1"'], PROXY),
        (['for=203.0.113.9;x="a,b"'], PROXY),
        (["203.0.113.9"], PROXY),
        (["for = 203.0.113.9"], PROXY),
    ],
)
def test_r31_forwarded_is_read_as_rfc_7239_from_the_right(forwarded: list[str], client: str) -> None:
    assert PROXIES.address(PROXY, (), forwarded) == client


def test_r31_both_headers_count_only_when_they_agree() -> None:
    assert PROXIES.address(PROXY, ["203.0.113.9"], ["for=203.0.113.9"]) == "203.0.113.9"
    assert PROXIES.address(PROXY, ["203.0.113.9"], ["for=198.51.100.1"]) == PROXY
    assert PROXIES.address(PROXY, ["203.0.113.9"], [" "]) == "203.0.113.9"


def test_r31_a_peer_without_an_address_is_believed_only_when_unix_is_trusted() -> None:
    proxies = TrustedProxies(["unix"])
    assert proxies.address(None, ["203.0.113.9"]) == "203.0.113.9"
    assert proxies.address("", ["1.1.1.1, 203.0.113.9"]) == "203.0.113.9"
    assert proxies.address(None) is None
    assert proxies.address(None, ["unknown"]) is None
    assert proxies.address("testclient", ["203.0.113.9"]) is None
    assert proxies.address("198.51.100.1", ["203.0.113.9"]) == "198.51.100.1"


def test_r31_only_so_many_hops_are_followed() -> None:
    hops = ["203.0.113.9", "10.9.9.9", *["10.2.2.2"] * (HOP_LIMIT - 1)]
    assert PROXIES.address(PROXY, [", ".join(hops)]) == "10.9.9.9"
    assert PROXIES.address(PROXY, [", ".join([hops[0], *hops[2:]])]) == "203.0.113.9"


@pytest.mark.parametrize("chunk", [",", "1.1.1.1,", 'for="', 'for=";', " ", "a=b;", "[:", "10.1.1.1,"])
def test_r31_junk_takes_a_number_of_steps_linear_in_its_length(chunk: str) -> None:
    counted = Counted("sojourn.binding")
    proxies = counted.module.TrustedProxies(["10.0.0.0/8"])

    def steps(size: int) -> int:
        values = [chunk * (size // len(chunk))]
        return counted.of(proxies.address, PROXY, values, values)

    assert steps(2_400) < 8 * 1.5 * steps(300)  # quadratic would be 64 times


@pytest.mark.parametrize(
    ("network", "match"),
    [
        ("proxy.internal", "no address and no network"),
        ("", "no address and no network"),
        ("10.0.0.1/8", "host bits"),
        ("10.0.0.0/33", "no address and no network"),
        ("0.0.0.0/0", "every client"),
        ("::/0", "every client"),
        ("::ffff:10.0.0.0/104", "IPv4 network"),
    ],
)
def test_r31_proxies_that_are_no_network_or_are_everybody_are_refused_at_start_up(network: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^SOJOURN_TRUSTED_PROXIES .*{match}"):
        TrustedProxies([PROXY, network])


def test_trusted_proxies_show_their_networks() -> None:
    assert repr(TrustedProxies(["unix", PROXY])) == "TrustedProxies(['unix', '10.0.0.1/32'])"
    assert repr(TrustedProxies()) == "TrustedProxies([])"


texts = st.none() | st.text(max_size=30)
clients = st.builds(Client, address=texts | addresses, user_agent=texts)


@given(client=st.none() | clients, ip=st.booleans(), policy=st.sampled_from(["observe", "reject"]))
def test_r31_a_fingerprint_is_16_bytes_and_the_same_for_the_same_client(
    client: Client | None, ip: bool, policy: Any
) -> None:
    binding = Binding(policy=policy, ip=ip)
    found = binding.fingerprint(client, KEY)
    assert found is not None
    assert len(found) == FINGERPRINT_BYTES
    assert found == binding.fingerprint(client, KEY)
    assert found != binding.fingerprint(client, b"x" * 32)


@given(one=clients, other=clients)
def test_r31_different_clients_have_different_fingerprints(one: Client, other: Client) -> None:
    binding = Binding(policy="reject", ipv6_prefix=128)

    def identity(client: Client) -> object:
        return client.address and (parse_address(client.address) or client.address), client.user_agent

    same = binding.fingerprint(one, KEY) == binding.fingerprint(other, KEY)
    assert same == (identity(one) == identity(other))


@given(address=st.ip_addresses(v=4), prefix=st.integers(24, 32), bit=st.integers(0, 31))
def test_r31_ipv4_addresses_are_compared_up_to_the_prefix(address: IPv4Address, prefix: int, bit: int) -> None:
    binding = Binding(policy="reject", ipv4_prefix=prefix)
    other = IPv4Address(int(address) ^ (1 << bit))
    same = binding.fingerprint(Client(str(address)), KEY) == binding.fingerprint(Client(str(other)), KEY)
    assert same == (bit < 32 - prefix)


@given(address=st.ip_addresses(v=6), prefix=st.integers(48, 128), bit=st.integers(0, 127))
def test_r31_ipv6_addresses_are_compared_up_to_the_prefix(address: IPv6Address, prefix: int, bit: int) -> None:
    address = IPv6Address(int(address) | 1 << 127)  # far from those that stand for IPv4
    binding = Binding(policy="reject", ipv6_prefix=prefix)
    other = IPv6Address(int(address) ^ (1 << (bit if bit < 127 else 0)))
    same = binding.fingerprint(Client(str(address)), KEY) == binding.fingerprint(Client(str(other)), KEY)
    assert same == ((bit if bit < 127 else 0) < 128 - prefix)


def test_r31_one_address_in_two_spellings_is_one_address() -> None:
    binding = Binding(policy="reject")
    one = binding.fingerprint(Client("203.0.113.9"), KEY)
    assert one == binding.fingerprint(Client("::ffff:203.0.113.9"), KEY)
    assert binding.fingerprint(Client("2001:db8::1"), KEY) == binding.fingerprint(Client("2001:DB8:0:0::2"), KEY)


def test_r31_a_part_that_is_absent_is_not_one_that_is_empty() -> None:
    binding = Binding(policy="reject")
    seen = [
        binding.fingerprint(client, KEY)
        for client in (Client(), Client(""), Client(user_agent=""), Client("", ""), Client("a"), Client(user_agent="a"))
    ]
    assert len(set(seen)) == len(seen)
    assert binding.fingerprint(None, KEY) == seen[0]


def test_r31_only_the_parts_that_are_switched_on_count() -> None:
    by_address = Binding(policy="reject", user_agent=False)
    by_agent = Binding(policy="observe", ip=False)
    one, moved, changed = Client("1.1.1.1", "a"), Client("2.2.2.2", "a"), Client("1.1.1.1", "b")
    assert by_address.fingerprint(one, KEY) == by_address.fingerprint(changed, KEY)
    assert by_address.fingerprint(one, KEY) != by_address.fingerprint(moved, KEY)
    assert by_agent.fingerprint(one, KEY) == by_agent.fingerprint(moved, KEY)
    assert by_agent.fingerprint(one, KEY) != by_agent.fingerprint(changed, KEY)
    assert by_agent.fingerprint(Client("a"), KEY) != by_address.fingerprint(Client(None, "a"), KEY)


def test_r31_nothing_is_bound_when_the_policy_is_off() -> None:
    assert Binding().fingerprint(Client("1.1.1.1", "a"), KEY) is None
    assert Binding(ip=False, user_agent=False).fingerprint(None, KEY) is None


def test_a_user_agent_that_is_no_valid_unicode_is_hashed_all_the_same() -> None:
    assert Binding(policy="reject").fingerprint(Client(None, "\udcff"), KEY)


@given(user_agent=st.none() | st.text(max_size=200))
def test_r14_any_client_has_a_short_printable_label(user_agent: str | None) -> None:
    label = Client(None, user_agent).label
    assert 0 < len(label) <= LABEL_LENGTH
    assert label.isascii()
    assert label.isprintable()
    assert not set(label) & set("<>&\"'")


@pytest.mark.parametrize(
    ("user_agent", "label"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0 Safari/537.36"
            " Edg/128.0",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605 (KHTML, like Gecko) Version/17.6"
            " Mobile/15E148 Safari/604.1",
            "Safari on iOS",
        ),
        (
            "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0 Mobile"
            " Safari/537.36",
            "Chrome on Android",
        ),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605 Version/17 Safari/605", "Safari on macOS"),
        ("curl/8.9.1", "curl"),
        ("x" * 200, "x" * 80),
        ("<script>", "unknown client"),
        ("", "unknown client"),
        (None, "unknown client"),
    ],
)
def test_r14_a_client_is_labelled_in_a_few_words(user_agent: str | None, label: str) -> None:
    assert Client("203.0.113.9", user_agent).label == label
