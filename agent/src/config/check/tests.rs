use std::path::Path;

use super::*;

fn error(text: &str) -> String {
    Config::parse(text, Some(Path::new("g.toml"))).unwrap_err().to_string()
}

#[test]
fn everything_has_a_default() {
    let config = Config::parse("", None).unwrap();
    assert_eq!(config.thresholds.handshake_stall, Duration::from_secs(1));
    assert_eq!(config.prefixes, [32, 128, 24, 48, 24, 48]);
    assert_eq!(config.namespaces, None);
}

#[test]
fn the_sketch_of_the_documentation_is_understood() {
    let text = r#"
        [node]
        name = "media-3"
        [[peer]]
        name = "us-east-lb"
        cidrs = ["10.77.1.0/24", "2001:db8::1"]
        per_address = true
        [[service]]
        name = "rooms-db"
        transport = "tcp"
        remote_ports = ["26257", 5432, "8000-8100"]
        [thresholds]
        handshake_stall = "1s"
    "#;
    let config = Config::parse(text, None).unwrap();
    assert_eq!(config.node, "media-3");
    assert_eq!(config.peers[0].cidrs[1], ("2001:db8::1".parse().unwrap(), 128));
    assert_eq!(config.services[0].ports, [26257..=26257, 5432..=5432, 8000..=8100]);
}

#[test]
fn errors_of_probes_name_the_line_the_field_and_the_remedy() {
    let rows = [
        (
            "[stamp]\nlisten = \"862\"",
            "g.toml:2: stamp.listen: `862` is no address and port; use e.g. \"0.0.0.0:862\" or \"[::]:862\"",
        ),
        (
            "[stamp]\nkey_file = \"stamp.keys\"",
            "g.toml:2: stamp.key_file: `stamp.keys` is no absolute path; use e.g. \"/etc/graylag/stamp.keys\"",
        ),
        (
            "[[probe]]\nkind = \"ping\"\ntarget = \"10.0.0.1\"",
            "g.toml:2: probe.kind: `ping` is no kind of probe; use stamp, tcp or tls",
        ),
        (
            "[[probe]]\nkind = \"tcp\"\ntarget = \"lb.example\"",
            "g.toml:3: probe.target: `lb.example` is no host and port; use e.g. \"lb.example:443\", \"192.0.2.1:443\" or \"[2001:db8::1]:443\"",
        ),
        (
            "[[probe]]\nkind = \"tls\"\ntarget = \"lb.example\"\nauthenticated = true",
            "g.toml:4: probe.authenticated: means nothing to `tls`; leave it out",
        ),
        (
            "[[probe]]\nkind = \"stamp\"\ntarget = \"10.0.0.1\"\ntimeout = \"1s\"",
            "g.toml:4: probe.timeout: means nothing to `stamp`; leave it out",
        ),
        (
            "[[probe]]\nkind = \"stamp\"\ntarget = \"lb.example\"",
            "g.toml:3: probe.target: `lb.example` is no address; use one with a port or without, such as \"192.0.2.1:862\" or \"2001:db8::1\"",
        ),
        (
            "[[probe]]\nkind = \"stamp\"\ntarget = \"10.0.0.1\"\n[[probe]]\nkind = \"stamp\"\ntarget = \"10.0.0.1:862\"",
            "g.toml:6: probe.target: 10.0.0.1:862 is there twice; name each target once",
        ),
        (
            "[[probe]]\nkind = \"stamp\"\ntarget = \"10.0.0.1\"\ninterval = \"1ms\"",
            "g.toml:4: probe.interval: `1ms` is out of range; use 10ms to 10s",
        ),
        (
            "[[probe]]\nkind = \"stamp\"\ntarget = \"10.0.0.1\"\npeer = \"b\"",
            "g.toml:4: probe.peer: no [[peer]] is called `b`; add one, or leave it out",
        ),
        (
            "[[probe]]\nkind = \"stamp\"\ntarget = \"10.0.0.1\"\nauthenticated = true",
            "g.toml:4: probe.authenticated: there are no keys; name their file in [stamp] key_file",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(error(text), expected);
    }
}

#[test]
fn errors_name_the_line_the_field_and_the_remedy() {
    let rows = [
        ("[node]\nnmae = \"x\"", "g.toml:2: nmae: unknown key; did you mean `name`?"),
        ("[nodes]", "g.toml:1: nodes: unknown key; did you mean `node`?"),
        ("[api]\nxyzzyplugh = 1", "g.toml:2: xyzzyplugh: unknown key; known here: socket, listen, path_map"),
        (
            "[[peer]]\nname = \"a\"\ncidrs = [\"10.0.0.0/33\"]",
            "g.toml:3: peer.cidrs: `10.0.0.0/33` is no CIDR; use an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32",
        ),
        (
            "[[peer]]\nname = \"a\"\ncidrs = [\"10.0.0.0/8\"]\n[[peer]]\nname = \"a\"\ncidrs = [\"11.0.0.0/8\"]",
            "g.toml:5: peer.name: `a` is there twice; give each peer a name of its own",
        ),
        (
            "[[peer]]\nname = \"a\"\ncidrs = []",
            "g.toml:2: peer.cidrs: `a` has no addresses; add e.g. cidrs = [\"192.0.2.0/24\"]",
        ),
        (
            "[[service]]\nname = \"a\"\nlocal_ports = [70000]",
            "g.toml:3: service.local_ports: 70000 is no port; use 1 to 65535, or a range such as \"8000-8100\"",
        ),
        (
            "[[service]]\nname = \"a\"",
            "g.toml:2: service: `a` has no ports; add remote_ports where this host is the client, local_ports where it serves",
        ),
        (
            "[thresholds]\nlease = \"soon\"",
            "g.toml:2: thresholds.lease: `soon`: expected number at 0; use a duration such as \"500ms\" or \"2s\"",
        ),
        (
            "[collect]\ninterval = \"1ms\"",
            "g.toml:2: collect.interval: `1ms` is out of range; use 100ms to 10s",
        ),
        (
            "[api]\nlisten = \"0.0.0.0:9464\"",
            "g.toml:2: api.listen: 0.0.0.0 is not a loopback address; the API has no authentication: use 127.0.0.1 or [::1]",
        ),
        ("[limits]\nconnections = 3", "g.toml:2: limits.connections: 3 is out of range; use 256 to 16777216"),
        (
            "[media]\ninterfaces = [\"eth 0\"]",
            "g.toml:2: media.interfaces: `eth 0` is no interface; use names or patterns such as \"eth0\" or \"bond*\", and [] for none",
        ),
        (
            "[paths]\nclient_prefix_v4 = 33",
            "g.toml:2: paths.client_prefix_v4: 33 bits; an address has 0 to 32",
        ),
        (
            "[scope]\nnetwork_namespaces = [\"blue\"]",
            "g.toml:2: scope.network_namespaces: `blue` is no namespace; use \"all\", \"host\" or a path such as \"/run/netns/blue\"",
        ),
        (
            "[kernel]\nlog = \"loud\"",
            "g.toml:2: kernel.log: `loud` is no level; use off, warn, info or debug",
        ),
    ];
    for (text, expected) in rows {
        assert_eq!(error(text), expected);
    }
    assert!(error("[node\n").starts_with("g.toml:1: "), "{}", error("[node\n"));
    assert!(
        error("[limits]\npaths = \"many\"").starts_with("g.toml:2: invalid type"),
        "{}",
        error("[limits]\npaths = \"many\"")
    );
}
