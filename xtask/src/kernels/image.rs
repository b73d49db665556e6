//! The guest's root: busybox, the agent, the tests, what they start, and the modules they need, in an initramfs.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Kernel, NOT_IN_GUESTS,
    fetch::{Files, directory},
    linked::Programs,
};
use crate::{
    build::Kind,
    programs::Program,
    release::Architecture,
    shell::{find, run},
};

/// What QEMU boots.
pub(super) struct Image {
    /// The kernel.
    pub(super) vmlinuz: PathBuf,
    /// The root.
    pub(super) initramfs: PathBuf,
}

/// Modules that the tests need and that these kernels do not have built in. What a kernel has built in is not among
/// its modules, and needs not be.
const MODULES: &[&str] = &[
    "ipv6",
    "veth",
    "nf_tables",
    "nft_counter",
    "nft_numgen",
    "nft_objref",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "sch_ingress",
    "sch_netem",
    "cls_bpf",
];
/// Programs that the tests start.
const PROGRAMS: &[&str] = &["ip", "nft", "tc", "setpriv"];
const APPLETS: &[&str] =
    &["sh", "mount", "umount", "modprobe", "poweroff", "cat", "cp", "mkdir", "sleep", "nsenter"];
/// Programs of ours that tests start, built beside them, where a test has any.
const OURS: &[(&str, &str)] = &[("path_map", "path_state")];

/// What the guest says when a test program ended: this, its name, its exit code.
pub(super) const ENDED: &str = "GRAYLAG-GUEST: ended";
/// What the guest says last.
pub(super) const DONE: &str = "GRAYLAG-GUEST: done";

/// The guest's first process. Whatever fails, it goes on to the end: what is missing shows in what was said.
const INIT: &str = "#!/bin/sh
export PATH=/bin RUST_BACKTRACE=0 GRAYLAG_BIN=/bin/graylag GRAYLAG_EMULATED=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t cgroup2 none /sys/fs/cgroup; mount -t bpf bpf /sys/fs/bpf
for module in $(cat /etc/modules); do modprobe $module || echo \"no module $module\"; done
ip link set lo up
cat /proc/version
graylag check; echo \"graylag check: exit code $?\"
";

/// Makes the image.
pub(super) fn build(kernel: &Kernel, files: Files, agent: &Path, tests: &[&Program]) -> Result<Image> {
    let directory = directory(kernel)?;
    let root = directory.join("initramfs");
    let _ = fs::remove_dir_all(&root);
    for path in ["bin", "proc", "sys", "dev", "tmp", "run", "etc"] {
        fs::create_dir_all(root.join(path))?;
    }
    let source = Programs { foreign: (kernel.architecture != Architecture::host()).then_some(&*files.root) };
    fs::copy(source.find("busybox")?, root.join("bin/busybox"))?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::copy(agent, root.join("bin/graylag"))?;
    for program in PROGRAMS {
        let path = source.find(program)?;
        fs::copy(&path, root.join("bin").join(program))?;
        source.copy_libraries(&path, &root)?;
    }
    let mut init = vec![INIT.to_owned(), format!("export GRAYLAG_WITHOUT={}", kernel.without.join(","))];
    for test in tests {
        let target = root.join("bin").join(&test.name);
        // Without its debug information, which is most of it: the guest keeps its root in memory.
        run(Command::new(kernel.architecture.strip())
            .arg("--strip-debug")
            .arg("-o")
            .arg(&target)
            .arg(&test.path))?;
        let mut line = format!("{} --test-threads=4", test.name);
        for (_, passed_over) in NOT_IN_GUESTS.iter().filter(|(program, _)| *program == test.name) {
            line.extend([" --skip ", passed_over]);
        }
        init.push(format!("{line}; echo {ENDED} {} $?", test.name));
        for (_, ours) in OURS.iter().filter(|(program, _)| *program == test.name) {
            // Test programs are in a directory of their own, beside these.
            let path = test.path.parent().and_then(Path::parent).context("no directory")?.join(ours);
            copy_to_its_path(&root, &path)?;
        }
    }
    init.push(format!("echo {DONE}\npoweroff -f\n"));
    fs::write(root.join("init"), init.join("\n"))?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    copy_modules(&files, &root)?;
    copy_objects(&root)?;

    let initramfs = directory.join("initramfs.img");
    // Not compressed: an emulated processor unpacks slowly, and the file need not travel.
    let mut archive = Command::new("sh");
    archive.args(["-c", "find . | cpio -o -H newc --quiet > \"$1\"", "sh"]).arg(&initramfs);
    run(archive.current_dir(&root))?;
    Ok(Image { vmlinuz: files.vmlinuz, initramfs })
}

/// The kernel objects, where the test of the verifier looks for them: at the paths they have here.
fn copy_objects(root: &Path) -> Result<()> {
    let workspace = std::env::current_dir()?;
    fs::create_dir_all(root.join(workspace.strip_prefix("/")?).join("tests"))?;
    Kind::ALL.iter().try_for_each(|kind| copy_to_its_path(root, &workspace.join(kind.object())))
}

/// To where it is here: tests know paths of their own machine.
fn copy_to_its_path(root: &Path, path: &Path) -> Result<()> {
    let target = root.join(path.strip_prefix("/").unwrap_or(path));
    fs::create_dir_all(target.parent().context("no directory")?)?;
    fs::copy(path, target).with_context(|| path.display().to_string())?;
    Ok(())
}

/// Modules with all they depend on, uncompressed: busybox's modprobe knows no compressed ones.
fn copy_modules(files: &Files, root: &Path) -> Result<()> {
    let release = &files.release;
    // Packages carry no list of dependencies; depmod makes it. From Debian 13 on modules are below /usr.
    let base = ["", "usr"].map(|prefix| files.root.join(prefix));
    let base = base.iter().find(|base| base.join("lib/modules").is_dir()).context("no modules")?;
    run(Command::new(tool("depmod")?).arg("-b").arg(base).arg(release))?;
    let target = root.join("lib/modules").join(release);
    fs::create_dir_all(&target)?;
    let mut present = Vec::new();
    for module in MODULES {
        let shown = Command::new(tool("modprobe")?)
            .arg("-d")
            .arg(base)
            .args(["-S", release, "--show-depends", module])
            .output()?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let paths: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("insmod ")).collect();
        for path in &paths {
            copy_module(Path::new(path.trim()), &target)?;
        }
        if !paths.is_empty() {
            present.push(*module);
        }
    }
    fs::write(root.join("etc/modules"), present.join("\n"))?;
    for list in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        let _ = fs::copy(base.join("lib/modules").join(release).join(list), target.join(list));
    }
    run(Command::new(tool("depmod")?).arg("-b").arg(root).arg(release))
}

fn copy_module(module: &Path, target: &Path) -> Result<()> {
    let copied = target.join(module.file_name().context("a module's name")?);
    fs::copy(module, &copied).with_context(|| module.display().to_string())?;
    if copied.extension().is_some_and(|extension| extension == "xz") {
        run(Command::new("xz").arg("-df").arg(&copied))?;
    }
    Ok(())
}

fn tool(name: &str) -> Result<PathBuf> {
    find(name).with_context(|| format!("{name} is missing: cargo xtask setup"))
}
