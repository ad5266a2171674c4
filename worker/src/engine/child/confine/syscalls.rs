//! The filter of system calls.
//!
//! Found by watching the engine (mistral.rs with GGUF, echo) from its first message to its last, and
//! then by asking of each call what could be done with it; safetensors are loaded and answered from
//! under it by `tests/corruption`. Three answers:
//!
//! * what an engine needs is allowed, with arguments where these matter;
//! * what no library calls by itself, and whoever took over an engine would, ends the process: the
//!   worker sees SIGSYS, says so and counts it (`engine-sandbox`);
//! * everything else fails with EPERM. A library that probes for it does without, so that an engine
//!   is not lost to a C library that is newer than this list.
//!
//! `clone3` fails with ENOSYS, since its flags are in memory that a filter cannot read: the C library
//! then calls `clone`, which is allowed for threads only.
#![allow(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "these numbers have other types with other C libraries and processors"
)]

use super::Step;
use libc::{self as c, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};
use std::collections::BTreeMap;

#[cfg(target_arch = "x86_64")]
const ARCH: Option<TargetArch> = Some(TargetArch::x86_64);
#[cfg(target_arch = "aarch64")]
const ARCH: Option<TargetArch> = Some(TargetArch::aarch64);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCH: Option<TargetArch> = None;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Allowed whatever the arguments.
const ALLOWED: &[c_long] = &[
    // Files that the view has, and sockets and pipes that are open already.
    c::SYS_read,
    c::SYS_readv,
    c::SYS_pread64,
    c::SYS_preadv,
    c::SYS_write,
    c::SYS_writev,
    c::SYS_lseek,
    c::SYS_close,
    c::SYS_openat,
    c::SYS_fstat,
    c::SYS_newfstatat,
    c::SYS_statx,
    c::SYS_statfs,
    c::SYS_fstatfs,
    c::SYS_readlinkat,
    c::SYS_faccessat,
    c::SYS_faccessat2,
    c::SYS_getdents64,
    c::SYS_getcwd,
    c::SYS_dup,
    c::SYS_dup3,
    c::SYS_fadvise64,
    c::SYS_flock,
    c::SYS_recvfrom,
    c::SYS_sendto,
    c::SYS_shutdown,
    c::SYS_getpeername,
    c::SYS_getsockname,
    c::SYS_getsockopt,
    // Waiting.
    c::SYS_epoll_create1,
    c::SYS_epoll_ctl,
    c::SYS_epoll_pwait,
    c::SYS_epoll_pwait2,
    c::SYS_eventfd2,
    c::SYS_pipe2,
    c::SYS_ppoll,
    c::SYS_pselect6,
    c::SYS_nanosleep,
    c::SYS_clock_nanosleep,
    c::SYS_futex,
    // Memory.
    c::SYS_munmap,
    c::SYS_mremap,
    c::SYS_madvise,
    c::SYS_brk,
    c::SYS_mincore,
    c::SYS_membarrier,
    // Threads of its own. `clone3` is refused by a filter of its own.
    c::SYS_clone3,
    c::SYS_exit,
    c::SYS_exit_group,
    c::SYS_set_robust_list,
    c::SYS_get_robust_list,
    c::SYS_rseq,
    c::SYS_set_tid_address,
    c::SYS_sched_yield,
    c::SYS_sched_getaffinity,
    c::SYS_sched_getparam,
    c::SYS_sched_getscheduler,
    c::SYS_getcpu,
    c::SYS_rt_sigaction,
    c::SYS_rt_sigprocmask,
    c::SYS_rt_sigreturn,
    c::SYS_sigaltstack,
    c::SYS_restart_syscall,
    // What it is, and when.
    c::SYS_getpid,
    c::SYS_gettid,
    c::SYS_getppid,
    c::SYS_getuid,
    c::SYS_geteuid,
    c::SYS_getgid,
    c::SYS_getegid,
    c::SYS_uname,
    c::SYS_sysinfo,
    c::SYS_getrusage,
    c::SYS_times,
    c::SYS_clock_gettime,
    c::SYS_clock_getres,
    c::SYS_gettimeofday,
    c::SYS_getrandom,
];

/// The same under the older names that x86 has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[
    c::SYS_open,
    c::SYS_stat,
    c::SYS_lstat,
    c::SYS_access,
    c::SYS_readlink,
    c::SYS_dup2,
    c::SYS_poll,
    c::SYS_select,
    c::SYS_pipe,
    c::SYS_epoll_wait,
    c::SYS_epoll_create,
    c::SYS_time,
    c::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

/// End the process.
const FATAL: &[c_long] = &[
    // Another program.
    c::SYS_execve,
    c::SYS_execveat,
    // Other processes.
    c::SYS_ptrace,
    c::SYS_process_vm_readv,
    c::SYS_process_vm_writev,
    c::SYS_process_madvise,
    c::SYS_kcmp,
    c::SYS_kill,
    c::SYS_tkill,
    c::SYS_rt_sigqueueinfo,
    c::SYS_rt_tgsigqueueinfo,
    c::SYS_pidfd_open,
    c::SYS_pidfd_send_signal,
    c::SYS_pidfd_getfd,
    // Mounts, namespaces and roots.
    c::SYS_mount,
    c::SYS_umount2,
    c::SYS_pivot_root,
    c::SYS_chroot,
    c::SYS_move_mount,
    c::SYS_open_tree,
    c::SYS_fsopen,
    c::SYS_fspick,
    c::SYS_fsconfig,
    c::SYS_fsmount,
    c::SYS_mount_setattr,
    c::SYS_unshare,
    c::SYS_setns,
    c::SYS_open_by_handle_at,
    c::SYS_name_to_handle_at,
    // Users and capabilities.
    c::SYS_setuid,
    c::SYS_setgid,
    c::SYS_setreuid,
    c::SYS_setregid,
    c::SYS_setresuid,
    c::SYS_setresgid,
    c::SYS_setfsuid,
    c::SYS_setfsgid,
    c::SYS_setgroups,
    c::SYS_capset,
    // Sockets to anywhere; making one is the rule below.
    c::SYS_connect,
    c::SYS_bind,
    c::SYS_listen,
    c::SYS_accept,
    c::SYS_accept4,
    // Parts of the kernel with a history.
    c::SYS_bpf,
    c::SYS_keyctl,
    c::SYS_add_key,
    c::SYS_request_key,
    c::SYS_io_uring_setup,
    c::SYS_io_uring_enter,
    c::SYS_io_uring_register,
    c::SYS_userfaultfd,
    c::SYS_perf_event_open,
    c::SYS_fanotify_init,
    c::SYS_personality,
    // The machine.
    c::SYS_init_module,
    c::SYS_finit_module,
    c::SYS_delete_module,
    c::SYS_kexec_load,
    c::SYS_reboot,
    c::SYS_swapon,
    c::SYS_swapoff,
    c::SYS_acct,
    c::SYS_quotactl,
    c::SYS_syslog,
    c::SYS_sethostname,
    c::SYS_setdomainname,
    c::SYS_settimeofday,
    c::SYS_clock_settime,
    c::SYS_adjtimex,
    c::SYS_clock_adjtime,
];

#[cfg(target_arch = "x86_64")]
const FATAL_HERE: &[c_long] = &[c::SYS_iopl, c::SYS_ioperm, c::SYS_kexec_file_load];
#[cfg(not(target_arch = "x86_64"))]
const FATAL_HERE: &[c_long] = &[];

/// Of `prctl`: names of threads and of mappings, and asking.
const PRCTL: [c::c_int; 3] = [c::PR_SET_NAME, c::PR_GET_NAME, PR_SET_VMA];
const PR_SET_VMA: c::c_int = 0x5356_4d41;
/// Of `ioctl`, without devices: what libraries ask of an open file or pipe.
const IOCTL: [u64; 5] = [
    c::TCGETS as u64,
    c::TIOCGWINSZ as u64,
    c::FIONBIO as u64,
    c::FIOCLEX as u64,
    c::FIONCLEX as u64,
];
/// Of `ioctl`, always fatal: what types into a terminal for its user, and what has the kernel send
/// signals to whom a descriptor names as its owner: to the worker, say.
const IOCTL_FATAL: [u64; 5] = [
    c::TIOCSTI as u64,
    c::TIOCLINUX as u64,
    FIOASYNC,
    FIOSETOWN,
    SIOCSPGRP,
];
const FIOASYNC: u64 = 0x5452;
const FIOSETOWN: u64 = 0x8901;
const SIOCSPGRP: u64 = 0x8902;
/// Of `fcntl`: copies and flags of descriptors, and locks. `F_SETFL` is a rule of its own.
const FCNTL: [c::c_int; 12] = [
    c::F_DUPFD,
    c::F_DUPFD_CLOEXEC,
    c::F_GETFD,
    c::F_SETFD,
    c::F_GETFL,
    c::F_GETLK,
    c::F_SETLK,
    c::F_SETLKW,
    c::F_OFD_GETLK,
    c::F_OFD_SETLK,
    c::F_OFD_SETLKW,
    c::F_GET_SEALS,
];
/// Of `fcntl`, fatal: whom the kernel sends signals to for a descriptor, and which. It asks no filter
/// for those.
const FCNTL_FATAL: [c::c_int; 3] = [c::F_SETOWN, F_SETSIG, F_SETOWN_EX];
const F_SETSIG: c::c_int = 10;
const F_SETOWN_EX: c::c_int = 15;

/// Which call, of what became of the argument `index`.
fn arg(
    index: u8,
    len: SeccompCmpArgLen,
    op: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, len, op, value)
}

/// A rule of conditions that all hold.
fn all(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions)
}

/// A rule for each value that a 32 bit argument may have.
fn one_of(
    index: u8,
    values: impl IntoIterator<Item = u64>,
) -> Result<Vec<SeccompRule>, BackendError> {
    values
        .into_iter()
        .map(|value| {
            all(vec![arg(
                index,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Eq,
                value,
            )?])
        })
        .collect()
}

/// What is allowed. With `devices`, whatever their drivers take: any `ioctl`, memory that is shared
/// with them, code that is loaded for them.
fn allowed(devices: bool, pid: u32) -> Result<Rules, BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq};
    let mut rules: Rules = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .map(|call| (i64::from(*call), Vec::new()))
        .collect();
    // Threads, and nothing that shares less.
    let thread = (c::CLONE_THREAD | c::CLONE_VM | c::CLONE_SIGHAND) as u64;
    rules.insert(
        i64::from(c::SYS_clone),
        vec![all(vec![arg(0, Qword, MaskedEq(thread), thread)?])?],
    );
    // Signals to its own threads: how a process aborts.
    rules.insert(i64::from(c::SYS_tgkill), one_of(0, [u64::from(pid)])?);
    // Pairs of streams, which are connected to each other and to nobody else.
    rules.insert(
        i64::from(c::SYS_socketpair),
        vec![all(vec![
            arg(0, Dword, Eq, c::AF_UNIX as u64)?,
            arg(1, Dword, MaskedEq(0xf), c::SOCK_STREAM as u64)?,
        ])?],
    );
    // Asks for limits and sets none.
    rules.insert(
        i64::from(c::SYS_prlimit64),
        vec![all(vec![arg(2, Qword, Eq, 0)?])?],
    );
    rules.insert(
        i64::from(c::SYS_prctl),
        one_of(0, PRCTL.map(|option| option as u64))?,
    );
    let mut fcntl = one_of(1, FCNTL.map(|command| command as u64))?;
    fcntl.push(all(vec![
        arg(1, Dword, Eq, c::F_SETFL as u64)?,
        arg(2, Dword, MaskedEq(c::O_ASYNC as u64), 0)?,
    ])?);
    rules.insert(i64::from(c::SYS_fcntl), fcntl);
    if devices {
        for call in [
            c::SYS_ioctl,
            c::SYS_mmap,
            c::SYS_mprotect,
            c::SYS_mlock,
            c::SYS_munlock,
        ] {
            rules.insert(i64::from(call), Vec::new());
        }
        return Ok(rules);
    }
    rules.insert(i64::from(c::SYS_ioctl), one_of(1, IOCTL)?);
    // Memory is its own, so that it is counted, or a file's; and data, never code.
    let kind = (c::MAP_SHARED | c::MAP_PRIVATE | c::MAP_ANONYMOUS) as u64;
    let data = || arg(2, Dword, MaskedEq(c::PROT_EXEC as u64), 0);
    let map = |flags: c::c_int| -> Result<SeccompRule, BackendError> {
        all(vec![data()?, arg(3, Dword, MaskedEq(kind), flags as u64)?])
    };
    rules.insert(
        i64::from(c::SYS_mmap),
        vec![
            map(c::MAP_PRIVATE)?,
            map(c::MAP_PRIVATE | c::MAP_ANONYMOUS)?,
            map(c::MAP_SHARED)?,
        ],
    );
    rules.insert(i64::from(c::SYS_mprotect), vec![all(vec![data()?])?]);
    Ok(rules)
}

/// What ends the process.
fn fatal() -> Result<Rules, BackendError> {
    use SeccompCmpArgLen::Dword;
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let mut rules: Rules = FATAL
        .iter()
        .chain(FATAL_HERE)
        .map(|call| (i64::from(*call), Vec::new()))
        .collect();
    // A C library may look for a name service or a log by a local socket, which fails; an engine has
    // no reason for any other.
    rules.insert(
        i64::from(c::SYS_socket),
        vec![all(vec![arg(0, Dword, Ne, c::AF_UNIX as u64)?])?],
    );
    rules.insert(i64::from(c::SYS_ioctl), one_of(1, IOCTL_FATAL)?);
    let mut fcntl = one_of(1, FCNTL_FATAL.map(|command| command as u64))?;
    let signals = c::O_ASYNC as u64;
    fcntl.push(all(vec![
        arg(1, Dword, Eq, c::F_SETFL as u64)?,
        arg(2, Dword, MaskedEq(signals), signals)?,
    ])?);
    rules.insert(i64::from(c::SYS_fcntl), fcntl);
    Ok(rules)
}

fn no_clone3() -> Rules {
    Rules::from([(i64::from(c::SYS_clone3), Vec::new())])
}

/// The filters, in the order in which they are to be applied: the last one forbids to apply more. Of
/// what they say to a call, the kernel takes the strictest.
fn programs(devices: bool, pid: u32, arch: TargetArch) -> Result<[BpfProgram; 3], BackendError> {
    let errno = |error: c::c_int| SeccompAction::Errno(error as u32);
    let allow = || SeccompAction::Allow;
    Ok([
        SeccompFilter::new(fatal()?, allow(), SeccompAction::KillProcess, arch)?.try_into()?,
        SeccompFilter::new(no_clone3(), allow(), errno(c::ENOSYS), arch)?.try_into()?,
        SeccompFilter::new(allowed(devices, pid)?, errno(c::EPERM), allow(), arch)?.try_into()?,
    ])
}

/// Applies them to this thread and all that come from it.
pub(super) fn filter(devices: bool) -> Step {
    let Some(arch) = ARCH else {
        return Step::Missing("system call filter: none was written for this processor".to_owned());
    };
    let programs = match programs(devices, std::process::id(), arch) {
        Ok(programs) => programs,
        Err(error) => return Step::Missing(format!("system call filter: {error}")),
    };
    for program in &programs {
        if let Err(error) = apply_filter(program) {
            return Step::Missing(format!("system call filter: {error}"));
        }
    }
    let calls = ALLOWED.len() + ALLOWED_HERE.len();
    Step::Done(format!(
        "system call filter: {calls} calls and some by their arguments, no socket, no new process"
    ))
}

#[cfg(test)]
mod tests;
