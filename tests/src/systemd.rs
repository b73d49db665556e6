//! systemd as the first process of a machine of its own: this machine's files under a layer that is thrown away, a host's network, a
//! part of the hierarchy of cgroups, and the unit and all that the package brings along.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::{
    agent::binary,
    deploy::file,
    eventually,
    inside::Inside,
    net::Host,
    pods::Cgroups,
    proc::{Directory, Ended, finish},
};

const SOON: Duration = Duration::from_secs(30);

/// Its file system, then itself. What is mounted goes with the namespace; what is written, with the memory that it is in.
///
/// Nothing of this machine is started but what is asked for: links from targets to services are left out.
const SCRIPT: &str = r#"
set -e
top="$1" program="$2" deploy="$3" root="$1/root"
mount --make-rprivate /
mount -t tmpfs top "$top"
mkdir "$top/upper" "$top/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs cgroup "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf -o mode=0700 bpf "$root/sys/fs/bpf"
mount --rbind /dev "$root/dev"
mount -t tmpfs run "$root/run"
mount -t tmpfs tmp "$root/tmp"
rm -rf "$root"/etc/systemd/system/*.wants "$root"/lib/systemd/system/*.wants
install -m 0755 "$program" "$root/usr/bin/graylag"
install -m 0644 "$deploy/systemd/graylag.service" "$root/lib/systemd/system/"
install -D -m 0644 "$deploy/systemd/graylag.sysusers" "$root/usr/lib/sysusers.d/graylag.conf"
install -D -m 0644 "$deploy/systemd/graylag.tmpfile" "$root/usr/lib/tmpfiles.d/graylag.conf"
install -D -m 0644 "$deploy/graylag.toml" "$root/etc/graylag/graylag.toml"
install -D -m 0644 "$deploy/systemd/graylag.default" "$root/etc/default/graylag"
systemd-sysusers --root="$root" graylag.conf
cd "$root"
exec chroot "$root" env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
    --unit=basic.target --log-target=console --log-level=notice
"#;

/// A running systemd.
pub struct Systemd {
    inside: Inside,
    _cgroups: Cgroups,
    _directory: Directory,
}

impl Systemd {
    /// Starts it on a host.
    pub fn start(host: &Host, test: &str) -> Self {
        /// A namespace of cgroups begins where the process is that makes it.
        const INTO: &str = "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"";
        crate::require_root();
        let (directory, cgroups) = (Directory::new(), Cgroups::new(test));
        let inside = Inside::start(host, |command| {
            command.args(["sh", "-c", INTO]).arg(cgroups.make(""));
            command.args([
                "unshare",
                "--mount",
                "--pid",
                "--cgroup",
                "--ipc",
                "--uts",
                "--fork",
                "--kill-child",
            ]);
            command.args(["sh", "-c", SCRIPT, "sh"]).arg(directory.path()).arg(binary()).arg(file("deploy"))
        });
        let mut this = Self { inside, _cgroups: cgroups, _directory: directory };
        eventually("systemd answers", SOON, || {
            this.inside.must_run();
            this.inside.first()?;
            (this.systemctl(&["show", "--property=Version"]).code == Some(0)).then_some(())
        });
        this
    }

    /// A place in its file system.
    #[track_caller]
    pub fn place(&self, path: &str) -> PathBuf {
        self.inside.place(path)
    }

    /// Runs a command there.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.inside.first().expect("systemd runs").to_string(),
            "--mount",
            "--pid",
            "--root",
            "--wd",
        ]);
        finish(command.args(arguments))
    }

    /// Runs `systemctl` there.
    #[track_caller]
    pub fn systemctl(&self, arguments: &[&str]) -> Ended {
        self.run(&[&["systemctl"], arguments].concat())
    }

    /// The same; fails where it does.
    #[track_caller]
    pub fn does(&self, arguments: &[&str]) {
        let ended = self.systemctl(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}\n{}", self.inside.said());
    }

    /// A property of a unit's.
    #[track_caller]
    pub fn property(&self, unit: &str, name: &str) -> String {
        let ended = self.systemctl(&["show", "--value", "--property", name, unit]);
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
        ended.out.trim().to_owned()
    }
}
