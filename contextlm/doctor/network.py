"""Network interfaces, which of them gloo and NCCL would take, and whether this host's name leads to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from contextlm.doctor.finding import OK, PROBLEM, WARNING, Finding

_INFINIBAND = Path("/sys/class/infiniband")
_PASSED_OVER = ("lo", "docker")  # by NCCL


def network(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """One line each."""
    addresses = {
        name: [entry.address for entry in entries if entry.family in (socket.AF_INET, socket.AF_INET6)]
        for name, entries in psutil.net_if_addrs().items()
    }
    up = [name for name, state in psutil.net_if_stats().items() if state.isup and addresses.get(name)]
    listed = ", ".join(f"{name} {addresses[name][0]}" for name in sorted(up))
    remedy = "" if up else "bring up loopback at least: ranks meet over it"
    yield Finding("network", "interfaces", listed or "none is up", OK if up else PROBLEM, remedy)
    several = _several_hosts(environ)
    yield from _host_name(several)
    yield _gloo(environ, addresses, up, several)
    yield _nccl(environ, up, several)
    if _INFINIBAND.is_dir() and (adapters := sorted(path.name for path in _INFINIBAND.iterdir())):
        yield Finding("network", "InfiniBand", ", ".join(adapters))
    if "MASTER_ADDR" in environ:
        yield _master(environ["MASTER_ADDR"])


def _several_hosts(environ: Mapping[str, str]) -> bool:
    """Whether torchrun or a scheduler started more hosts than this one."""
    world, local = environ.get("WORLD_SIZE"), environ.get("LOCAL_WORLD_SIZE")
    nodes = environ.get("SLURM_NNODES", environ.get("NNODES", "1"))
    return (world is not None and local is not None and world != local) or nodes not in ("", "1")


def _host_name(several: bool) -> Iterator[Finding]:
    name, address = socket.gethostname(), _resolved(socket.gethostname())
    if address is None:
        remedy = "add it to /etc/hosts or name the interface: GLOO_SOCKET_IFNAME"
        yield Finding("network", "host name", f"{name} does not resolve", PROBLEM if several else WARNING, remedy)
    elif address.startswith("127.") or address == "::1":
        remedy = "GLOO_SOCKET_IFNAME must name the interface that other hosts reach" if several else ""
        words = f"{name} resolves to {address}, which no other host reaches"
        yield Finding("network", "host name", words, WARNING if several else OK, remedy)
    else:
        yield Finding("network", "host name", f"{name} resolves to {address}")


def _gloo(environ: Mapping[str, str], addresses: Mapping[str, list[str]], up: list[str], several: bool) -> Finding:
    """gloo binds the address that the host's name resolves to, else loopback."""
    if (given := environ.get("GLOO_SOCKET_IFNAME")) is not None:
        return _given("gloo", "GLOO_SOCKET_IFNAME", given.split(","), up)
    address = _resolved(socket.gethostname())
    name = next((name for name, each in addresses.items() if address in each), None)
    if name is None and address is not None and address.startswith("127."):
        name = "lo"
    if name is None:
        words, remedy = "no interface has the host's address: loopback", "set GLOO_SOCKET_IFNAME"
        return Finding("network", "gloo", words, PROBLEM if several else WARNING, remedy)
    is_loopback = name == "lo"
    remedy = "set GLOO_SOCKET_IFNAME to the interface that other hosts reach" if several and is_loopback else ""
    return Finding("network", "gloo", f"takes {name}", PROBLEM if remedy else OK, remedy)


def _nccl(environ: Mapping[str, str], up: list[str], several: bool) -> Finding:
    if (given := environ.get("NCCL_SOCKET_IFNAME")) is not None:
        if given.startswith("^"):
            return Finding("network", "NCCL", f"takes none of {given[1:]} (NCCL_SOCKET_IFNAME)")
        names, exact = given.lstrip("=").split(","), given.startswith("=")
        return _given("NCCL", "NCCL_SOCKET_IFNAME", names, up, prefix=not exact)
    fit = sorted((name for name in up if not name.startswith(_PASSED_OVER)), key=lambda name: not name.startswith("ib"))
    if not fit:
        remedy = "bring up the interface that other hosts reach" if several else ""
        return Finding("network", "NCCL", "has loopback alone", PROBLEM if several else OK, remedy)
    words = f"takes {fit[0]}" + (f" among {', '.join(fit)}" if len(fit) > 1 else "")
    remedy = "set NCCL_SOCKET_IFNAME, so that all hosts take the same network" if several and len(fit) > 1 else ""
    return Finding("network", "NCCL", words, WARNING if remedy else OK, remedy)


def _given(what: str, variable: str, names: list[str], up: list[str], prefix: bool = False) -> Finding:
    """An interface that somebody named."""
    found = [name for name in up if any(name.startswith(given) if prefix else name == given for given in names)]
    if not found:
        remedy = f"name one of {', '.join(sorted(up)) or 'those that are up'}, or unset {variable}"
        return Finding("network", what, f"{variable}={','.join(names)}: no such interface is up", PROBLEM, remedy)
    return Finding("network", what, f"takes {', '.join(found)} ({variable})")


def _master(address: str) -> Finding:
    found = _resolved(address)
    if found is None:
        remedy = "give a host name that every host knows, or an address"
        return Finding("network", "MASTER_ADDR", f"{address} does not resolve", PROBLEM, remedy)
    return Finding("network", "MASTER_ADDR", f"{address} resolves to {found}")


def _resolved(name: str) -> str | None:
    try:
        return str(socket.getaddrinfo(name, None)[0][4][0])
    except OSError:
        return None
