//! Real servers: nginx, haproxy, postgresql, each in a directory of its own.

use std::{
    fmt::Write,
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    eventually,
    net::Host,
    proc::{Directory, Process, run},
};

/// nginx with one page, in the foreground, without privileges to drop.
pub struct Nginx {
    /// The master.
    pub process: Process,
    _directory: Directory,
}

impl Nginx {
    /// Listens on these addresses.
    pub fn start(host: &Host, addresses: &[IpAddr], port: u16) -> Self {
        let directory = Directory::new();
        let root = directory.path().display().to_string();
        directory.write("index.html", &"all is well\n".repeat(100));
        let listen: Vec<String> =
            addresses.iter().map(|a| format!("listen {};", with_port(*a, port))).collect();
        let listen = listen.join("\n");
        let config = directory.write(
            "nginx.conf",
            &format!(
                "daemon off; worker_processes 1; pid {root}/pid; error_log stderr warn; user root;
                 events {{ worker_connections 4096; }}
                 http {{ access_log off; client_body_temp_path {root}; proxy_temp_path {root};
                   fastcgi_temp_path {root}; uwsgi_temp_path {root}; scgi_temp_path {root};
                   server {{ {listen} root {root}; }} }}"
            ),
        );
        let mut command = host.command("nginx");
        command.arg("-c").arg(&config).arg("-p").arg(directory.path()).args(["-e", "stderr"]);
        let nginx = Self { process: Process::start(&mut command), _directory: directory };
        accepting(host, addresses, port, &nginx.process);
        nginx
    }

    /// The workers, which answer; stopping them leaves the kernel accepting.
    pub fn workers(&self) -> Vec<u32> {
        children(self.process.id())
    }
}

/// haproxy with one frontend to each `(address and port, backend, mode)`.
pub struct Haproxy {
    /// The process.
    pub process: Process,
    _directory: Directory,
}

impl Haproxy {
    /// Each `(listen, server)` pair is a TCP proxy.
    pub fn start(host: &Host, proxies: &[(String, String)]) -> Self {
        let directory = Directory::new();
        let mut config = String::from(
            "global\n  maxconn 4000\n  log stderr format raw local0 warning\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
             timeout client 60s\n  timeout server 60s\n",
        );
        for (i, (listen, server)) in proxies.iter().enumerate() {
            let _ = writeln!(config, "listen p{i}\n  bind {listen}\n  server s {server}");
        }
        let path = directory.write("haproxy.cfg", &config);
        let process = Process::start(host.command("haproxy").arg("-db").arg("-f").arg(path));
        Self { process, _directory: directory }
    }
}

/// postgresql with a database of its own, run as `postgres`: it refuses to be root.
pub struct Postgres {
    process: Process,
    bin: PathBuf,
    directory: Directory,
}

impl Postgres {
    /// Listens on an address; everybody may come in.
    pub fn start(host: &Host, address: IpAddr, port: u16) -> Self {
        let bin = newest("/usr/lib/postgresql").join("bin");
        let directory = Directory::new();
        let data = directory.path().join("data");
        let (uid, gid) = identity("postgres");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        fs::create_dir(&data).expect("data directory");
        chown(&data, Some(uid), Some(gid)).expect("owner");
        let as_postgres = |program: &str| {
            let mut command = host.command("setpriv");
            command.args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups"]);
            command.arg(bin.join(program)).current_dir("/");
            command
        };
        run(as_postgres("initdb").args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"]).arg(&data));
        fs::write(data.join("pg_hba.conf"), "host all all all trust\nlocal all all trust\n")
            .expect("pg_hba.conf");
        let mut command = as_postgres("postgres");
        command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-h", &address.to_string(), "-k", ""]);
        command.args(["-c", "fsync=off", "-c", "max_connections=400", "-c", "shared_buffers=16MB"]);
        let postgres = Self { process: Process::start(&mut command), bin, directory };
        accepting(host, &[address], port, &postgres.process);
        postgres
    }

    /// Runs SQL from a host.
    pub fn sql(&self, host: &Host, address: IpAddr, port: u16, sql: &str) {
        let mut command = host.command(self.bin.join("psql").to_str().expect("path"));
        command.args(["-h", &address.to_string(), "-p", &port.to_string(), "-U", "postgres", "-qc", sql]);
        run(&mut command);
    }

    /// pgbench with a script, `rate` transactions a second on `clients` connections, until it is dropped.
    pub fn bench(
        &self,
        host: &Host,
        address: IpAddr,
        port: u16,
        script: &str,
        rate: u32,
        clients: u32,
    ) -> Process {
        let path = self.directory.write(&format!("script-{port}.sql"), script);
        let mut command = host.command(self.bin.join("pgbench").to_str().expect("path"));
        command.args(["-h", &address.to_string(), "-p", &port.to_string(), "-U", "postgres", "-n", "-f"]);
        command.arg(path).args(["-R", &rate.to_string(), "-c", &clients.to_string(), "-j", "1", "-T", "600"]);
        command.arg("postgres");
        Process::start(&mut command)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Fast shutdown: clients need not leave first.
        self.process.signal(Signal::INT);
    }
}

/// `address:port`, in brackets where it must be.
pub fn with_port(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// Child processes.
pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn accepting(host: &Host, addresses: &[IpAddr], port: u16, process: &Process) {
    for address in addresses {
        let target = std::net::SocketAddr::new(*address, port);
        eventually(
            &format!("{target} accepts; it said: {:?}", process.output()),
            Duration::from_secs(60),
            || host.run(|| std::net::TcpStream::connect_timeout(&target, Duration::from_secs(1)).ok()),
        );
    }
}

fn newest(directory: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = fs::read_dir(directory)
        .expect("postgresql must be installed: cargo xtask setup")
        .flatten()
        .map(|e| e.path())
        .collect();
    versions.sort_by_key(|p| p.file_name().and_then(|n| n.to_str()?.parse::<u32>().ok()));
    versions.pop().expect("a version of postgresql")
}

fn identity(user: &str) -> (u32, u32) {
    let text = fs::read_to_string(Path::new("/etc/passwd")).expect("/etc/passwd");
    let line =
        text.lines().find(|l| l.split(':').next() == Some(user)).unwrap_or_else(|| panic!("no user {user}"));
    let mut fields = line.split(':').skip(2).map(|id| id.parse().expect("id"));
    (fields.next().expect("uid"), fields.next().expect("gid"))
}

/// Sends a signal to a process by its id.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("pid");
    kill_process(pid, signal).expect("kill");
}
