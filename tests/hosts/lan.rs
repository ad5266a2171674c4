//! Hosts with addresses of their own, on one machine: each is a network namespace, joined to the
//! others by a router in the middle, where filter rules cut and lose packets.
//!
//! ```text
//!   worker 10.77.1.2 ──┐                     ┌── gateway 10.77.3.2
//!                      ├── core (10.77.N.1) ─┤
//!   orch.  10.77.2.2 ──┘                     └── home router 10.77.4.2 ── worker 192.168.4.2
//! ```
//!
//! Needs `ip` and `nft`, and either root or user namespaces. A namespace is held by a process that
//! is killed with the test's thread, as is everything started in it: nothing is left behind.

use crate::support::{not_run, skip};
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::process::{Child, Command, Output, Stdio};

/// Something that rules need of the kernel: what it is, and rules that show that it is there.
pub(crate) struct Need(&'static str, &'static str);

/// Packets are dropped by address.
pub(crate) const FILTER: Need = Need(
    "nf_tables' filter",
    "table inet probe { chain c { type filter hook forward priority 0; ip saddr 192.0.2.1 drop; }; }",
);
/// Packets are dropped by chance.
pub(crate) const LOSS: Need = Need(
    "nf_tables' numgen",
    "table inet probe { chain c { type filter hook forward priority 0; numgen random mod 100 < 1 drop; }; }",
);
/// Addresses are translated.
pub(crate) const NAT: Need = Need(
    "nf_tables' masquerade and connection tracking",
    "table ip probe { chain c { type nat hook postrouting priority 100; masquerade fully-random; }; \
     chain f { type filter hook forward priority 0; ct state established accept; }; }",
);

/// What is started in each namespace, so that it ends with the thread that started it.
const WITH_PARENT: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// Some hosts and the router between them.
pub(crate) struct Lan {
    core: Namespace,
    hosts: u8,
}

/// A network namespace, and the process that holds it.
struct Namespace {
    holder: Child,
    in_user_namespace: bool,
}

/// A host.
pub(crate) struct Host {
    namespace: Namespace,
    /// Its number, which is in its addresses.
    number: u8,
    /// Its home's router, where it has no address that the others reach.
    _router: Option<Namespace>,
}

/// How a home's router translates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// One outer port for each inner one, whoever is spoken to: punching works.
    Steady,
    /// Another outer port for each peer ("symmetric"): punching cannot work between two of them.
    Random,
}

impl Lan {
    /// Makes the router in the middle; nothing, after saying so, where something is missing.
    pub(crate) fn new(needs: &[Need]) -> Option<Self> {
        for (program, package) in [
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("unshare", "util-linux"),
            ("nsenter", "util-linux"),
            ("setpriv", "util-linux"),
        ] {
            let found = Command::new(program)
                .arg("--version")
                .stdin(Stdio::null())
                .output();
            // `ip` knows only the short form, and says so: being found is enough.
            if found.is_err() {
                skip(&format!("{program} (of {package}) is missing"));
                return None;
            }
        }
        let lacking = |what: &str, why: &str| {
            not_run(&format!("this machine has no {what}: {}", why.trim()));
        };
        let core = Namespace::new(None)
            .and_then(|core| Ok((core.up()?, core)))
            .map_err(|why| lacking("network namespaces", &why));
        let ((), core) = core.ok()?;
        for Need(what, rules) in needs {
            if let Err(why) = core.rules(rules).and_then(|()| core.rules("flush ruleset")) {
                lacking(what, &why);
                return None;
            }
        }
        let pair = core.join("probe0", "probe1", &core);
        if let Err(why) = pair.and_then(|()| core.ip(&["link", "del", "probe0"])) {
            lacking("veth interfaces", &why);
            return None;
        }
        Some(Self { core, hosts: 0 })
    }

    /// A host with an address that all others reach.
    pub(crate) fn host(&mut self) -> Host {
        let number = self.number();
        let namespace = self.namespace();
        let address = format!("10.77.{number}");
        join(&self.core, &namespace, &format!("h{number}"), &address);
        Host {
            namespace,
            number,
            _router: None,
        }
    }

    /// A host behind a router of its own, which lets out what the host begins, and lets in nothing
    /// but the answers.
    pub(crate) fn home(&mut self, mapping: Mapping) -> Host {
        let number = self.number();
        let (router, namespace) = (self.namespace(), self.namespace());
        let outer = format!("10.77.{number}");
        join(&self.core, &router, &format!("h{number}"), &outer);
        join(&router, &namespace, "home", &format!("192.168.{number}"));
        let masquerade = match mapping {
            Mapping::Steady => "masquerade",
            Mapping::Random => "masquerade fully-random",
        };
        let rules = format!(
            "table ip home {{
                chain out {{ type nat hook postrouting priority 100; oifname \"eth0\" {masquerade}; }}
                chain through {{ type filter hook forward priority 0; policy drop;
                    ct state established,related accept; iifname \"home\" accept; }}
                chain into {{ type filter hook input priority 0; policy drop;
                    ct state established,related accept; }}
            }}"
        );
        router.rules(&rules).expect("it was tried before");
        Host {
            namespace,
            number,
            _router: Some(router),
        }
    }

    /// Cuts the two sets of hosts from each other, until [`Lan::heal`].
    pub(crate) fn cut(&self, some: &[&Host], others: &[&Host]) {
        let set = |hosts: &[&Host]| {
            let nets: Vec<_> = hosts.iter().map(|host| host.network()).collect();
            format!("{{ {} }}", nets.join(", "))
        };
        let (some, others) = (set(some), set(others));
        self.filter(&format!(
            "ip saddr {some} ip daddr {others} drop; ip saddr {others} ip daddr {some} drop;"
        ));
    }

    /// Drops this share of all packets between hosts, by chance, until [`Lan::heal`].
    pub(crate) fn lose(&self, percent: u8) {
        self.filter(&format!("numgen random mod 100 < {percent} drop;"));
    }

    fn filter(&self, rules: &str) {
        let table = format!(
            "table inet core {{ chain between {{ type filter hook forward priority 0; {rules} }}; }}"
        );
        self.core.rules(&table).expect("it was tried before");
    }

    /// Lets everything through again.
    pub(crate) fn heal(&self) {
        self.core.rules("flush ruleset").expect("rules are removed");
    }

    fn number(&mut self) -> u8 {
        self.hosts += 1;
        self.hosts
    }

    fn namespace(&self) -> Namespace {
        let namespace = Namespace::new(Some(&self.core)).expect("one was made before");
        namespace.up().expect("as the first one");
        namespace
    }
}

impl Host {
    /// A command that runs there.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// The address that the others see.
    pub(crate) fn address(&self) -> String {
        format!("10.77.{}.2", self.number)
    }

    fn network(&self) -> String {
        format!("10.77.{}.0/24", self.number)
    }

    /// From now on it takes the ports that it chooses itself from these.
    pub(crate) fn choose_ports(&self, from: RangeInclusive<u16>) {
        let mut choose = self.command("sh");
        let range = format!("{} {}", from.start(), from.end());
        choose.args([
            "-c",
            &format!("echo {range} > /proc/sys/net/ipv4/ip_local_port_range"),
        ]);
        done(choose.stdin(Stdio::null()).output()).expect("a namespace has a range of its own");
    }

    /// Takes its address away and gives it another one, as a new lease does.
    pub(crate) fn move_to(&self, last: u8) -> String {
        let number = self.number;
        let (old, new) = (self.address(), format!("10.77.{number}.{last}"));
        let gateway = format!("10.77.{number}.1");
        for args in [
            ["addr", "del", &format!("{old}/24"), "dev", "eth0"].as_slice(),
            &["addr", "add", &format!("{new}/24"), "dev", "eth0"],
            // Routes go with the address by which they were made.
            &["route", "replace", "default", "via", &gateway],
        ] {
            self.namespace.ip(args).expect("as at the start");
        }
        new
    }
}

/// Joins a namespace to a router: `.1` is the router's side, `.2` the other one's, which is `eth0`.
fn join(router: &Namespace, namespace: &Namespace, name: &str, network: &str) {
    let made = router
        .join(name, "eth0", namespace)
        .and_then(|()| router.ip(&["addr", "add", &format!("{network}.1/24"), "dev", name]))
        .and_then(|()| router.ip(&["link", "set", name, "up"]))
        .and_then(|()| namespace.ip(&["addr", "add", &format!("{network}.2/24"), "dev", "eth0"]))
        .and_then(|()| namespace.ip(&["link", "set", "eth0", "up"]))
        .and_then(|()| {
            let gateway = format!("{network}.1");
            namespace.ip(&["route", "add", "default", "via", &gateway])
        });
    made.expect("as the first pair of interfaces");
}

impl Namespace {
    /// A new one; inside the user namespace of another one, where there is one.
    fn new(beside: Option<&Self>) -> Result<Self, String> {
        let in_user_namespace = !rustix::process::geteuid().is_root();
        let mut command = match beside {
            Some(other) if in_user_namespace => {
                let mut command = other.nsenter(&["--user", "--preserve-credentials"]);
                command.args(["unshare", "--net"]);
                command
            }
            _ => {
                let mut command = Command::new("unshare");
                if in_user_namespace {
                    command.args(["--user", "--map-root-user"]);
                }
                command.arg("--net");
                command
            }
        };
        // It says a line once it is there, and then holds the namespace.
        let held = command
            .args(WITH_PARENT)
            .args(["sh", "-c", "echo made; exec sleep infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut holder = held.map_err(|error| error.to_string())?;
        let mut said = String::new();
        let stdout = holder.stdout.take().expect("piped");
        let _ = std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut said);
        let namespace = Self {
            holder,
            in_user_namespace,
        };
        if said.trim() == "made" {
            return Ok(namespace);
        }
        Err(namespace.last_words())
    }

    fn last_words(mut self) -> String {
        let mut said = String::new();
        let _ = self.holder.wait();
        if let Some(mut stderr) = self.holder.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
        }
        said
    }

    fn nsenter(&self, which: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.holder.id()))
            .args(which)
            .arg("--");
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = match self.in_user_namespace {
            true => self.nsenter(&["--user", "--preserve-credentials", "--net"]),
            false => self.nsenter(&["--net"]),
        };
        command.args(WITH_PARENT).arg(program);
        command
    }

    /// Itself on loopback, and a router for others.
    fn up(&self) -> Result<(), String> {
        self.ip(&["link", "set", "lo", "up"])?;
        let mut forward = self.command("sh");
        forward.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        done(forward.stdin(Stdio::null()).output())
    }

    fn ip(&self, args: &[&str]) -> Result<(), String> {
        done(self.command("ip").args(args).stdin(Stdio::null()).output())
    }

    /// A pair of interfaces, one here and one there.
    fn join(&self, name: &str, peer: &str, there: &Self) -> Result<(), String> {
        let there = there.holder.id().to_string();
        self.ip(&[
            "link", "add", name, "type", "veth", "peer", "name", peer, "netns", &there,
        ])
    }

    fn rules(&self, rules: &str) -> Result<(), String> {
        let mut nft = self
            .command("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut stdin = nft.stdin.take().expect("piped");
        let written = stdin.write_all(rules.as_bytes());
        drop(stdin);
        done(nft.wait_with_output())?;
        written.map_err(|error| error.to_string())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn done(output: std::io::Result<Output>) -> Result<(), String> {
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
