//! The filters, run as the kernel would run them.

use super::*;
use seccompiler::sock_filter;

const PID: u32 = 4_711;

/// What a call comes to, by the strictest of the three.
fn verdict(devices: bool, call: c_long, args: [u64; 6]) -> u32 {
    let arch = ARCH.expect("one of the two");
    let programs = programs(devices, PID, arch).expect("compiles");
    // Actions are ordered by strictness as signed numbers (seccomp(2)).
    let verdicts = programs.iter().map(|program| run(program, call, args));
    verdicts.min_by_key(|value| *value as i32).expect("three")
}

/// A classic BPF machine, as far as the compiler uses it.
fn run(program: &[sock_filter], call: c_long, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend_from_slice(&(call as i32).to_ne_bytes());
    let audit: u32 = match ARCH {
        Some(TargetArch::x86_64) => 62 | 0x8000_0000 | 0x4000_0000,
        _ => 183 | 0x8000_0000 | 0x4000_0000,
    };
    data.extend_from_slice(&audit.to_ne_bytes());
    data.extend_from_slice(&[0; 8]);
    for arg in args {
        data.extend_from_slice(&arg.to_ne_bytes());
    }
    let (mut at, mut value) = (0, 0_u32);
    loop {
        let line = &program[at];
        at += 1;
        let jump = |is: bool| usize::from(if is { line.jt } else { line.jf });
        match line.code {
            // Load a word.
            0x20 => {
                let from = line.k as usize;
                value = u32::from_ne_bytes(data[from..from + 4].try_into().expect("four"));
            }
            // And.
            0x54 => value &= line.k,
            0x05 => at += line.k as usize,
            0x15 => at += jump(value == line.k),
            0x25 => at += jump(value > line.k),
            0x35 => at += jump(value >= line.k),
            0x06 => return line.k,
            code => panic!("instruction {code:#x} is not known here"),
        }
    }
}

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0000 | c::EPERM as u32;
const ENOSYS: u32 = 0x0005_0000 | c::ENOSYS as u32;

fn plain(call: c_long, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    verdict(false, call, all)
}

#[test]
fn threads_are_started_and_processes_are_not() {
    let thread = c::CLONE_VM | c::CLONE_FS | c::CLONE_FILES | c::CLONE_SIGHAND | c::CLONE_THREAD;
    assert_eq!(plain(c::SYS_clone, &[thread as u64]), ALLOW);
    let vfork = (c::CLONE_VM | c::CLONE_VFORK | c::SIGCHLD) as u64;
    assert_eq!(plain(c::SYS_clone, &[vfork]), EPERM);
    assert_eq!(plain(c::SYS_clone, &[c::SIGCHLD as u64]), EPERM);
    assert_eq!(plain(c::SYS_clone3, &[]), ENOSYS);
    #[cfg(target_arch = "x86_64")]
    for call in [c::SYS_fork, c::SYS_vfork] {
        assert_eq!(plain(call, &[]), EPERM);
    }
    assert_eq!(plain(c::SYS_execve, &[]), KILL);
    assert_eq!(plain(c::SYS_execveat, &[]), KILL);
}

#[test]
fn no_socket_leads_anywhere() {
    for family in [
        c::AF_INET,
        c::AF_INET6,
        c::AF_NETLINK,
        c::AF_PACKET,
        c::AF_VSOCK,
    ] {
        assert_eq!(plain(c::SYS_socket, &[family as u64]), KILL, "{family}");
    }
    assert_eq!(plain(c::SYS_socket, &[c::AF_UNIX as u64]), EPERM);
    let pair = |kind: c::c_int| plain(c::SYS_socketpair, &[c::AF_UNIX as u64, kind as u64]);
    assert_eq!(pair(c::SOCK_STREAM | c::SOCK_CLOEXEC), ALLOW);
    // One of datagrams can send to any address.
    assert_eq!(pair(c::SOCK_DGRAM), EPERM);
    for call in [c::SYS_connect, c::SYS_bind, c::SYS_listen, c::SYS_accept4] {
        assert_eq!(plain(call, &[]), KILL);
    }
    for call in [c::SYS_sendmsg, c::SYS_sendmmsg, c::SYS_recvmsg] {
        assert_eq!(plain(call, &[]), EPERM, "descriptors travel by these");
    }
}

#[test]
fn only_its_own_threads_can_be_signalled() {
    assert_eq!(plain(c::SYS_tgkill, &[u64::from(PID), 1, 6]), ALLOW);
    assert_eq!(plain(c::SYS_tgkill, &[1, 1, 9]), EPERM);
    for call in [
        c::SYS_kill,
        c::SYS_tkill,
        c::SYS_rt_sigqueueinfo,
        c::SYS_pidfd_open,
        c::SYS_pidfd_send_signal,
        c::SYS_ptrace,
        c::SYS_process_vm_readv,
        c::SYS_process_vm_writev,
    ] {
        assert_eq!(plain(call, &[]), KILL);
    }
}

#[test]
fn no_descriptor_has_the_kernel_send_signals() {
    for devices in [false, true] {
        let fcntl = |command: c::c_int, value: c::c_int| {
            let args = [3, command as u64, value as u64, 0, 0, 0];
            verdict(devices, c::SYS_fcntl, args)
        };
        for command in [c::F_SETOWN, F_SETSIG, F_SETOWN_EX] {
            assert_eq!(fcntl(command, 1), KILL, "{command}");
        }
        // The kernel looks at 32 bits of a command: the others must not hide it.
        let hidden = [3, c::F_SETOWN as u64 | 1 << 32, 1, 0, 0, 0];
        assert_eq!(verdict(devices, c::SYS_fcntl, hidden), KILL);
        assert_eq!(fcntl(c::F_SETFL, c::O_ASYNC | c::O_NONBLOCK), KILL);
        assert_eq!(fcntl(c::F_SETFL, c::O_NONBLOCK), ALLOW);
        for command in [c::F_DUPFD_CLOEXEC, c::F_GETFD, c::F_GETFL, c::F_SETLK] {
            assert_eq!(fcntl(command, 0), ALLOW, "{command}");
        }
        for command in [c::F_NOTIFY, c::F_SETLEASE, c::F_GETOWN, c::F_SETPIPE_SZ] {
            assert_eq!(fcntl(command, 0), EPERM, "{command}");
        }
        for command in [FIOASYNC, FIOSETOWN, SIOCSPGRP] {
            let ioctl = verdict(devices, c::SYS_ioctl, [3, command, 0, 0, 0, 0]);
            assert_eq!(ioctl, KILL, "{command:#x}");
        }
    }
}

#[test]
fn what_opens_the_kernel_is_fatal() {
    for call in [
        c::SYS_bpf,
        c::SYS_keyctl,
        c::SYS_io_uring_setup,
        c::SYS_userfaultfd,
        c::SYS_perf_event_open,
        c::SYS_mount,
        c::SYS_unshare,
        c::SYS_setns,
        c::SYS_pivot_root,
        c::SYS_chroot,
        c::SYS_setuid,
        c::SYS_capset,
        c::SYS_init_module,
        c::SYS_open_by_handle_at,
    ] {
        assert_eq!(plain(call, &[]), KILL, "{call}");
    }
    for call in [
        c::SYS_seccomp,
        c::SYS_memfd_create,
        c::SYS_setrlimit,
        c::SYS_shmget,
    ] {
        assert_eq!(plain(call, &[]), EPERM, "{call}");
    }
}

#[test]
fn nobody_types_into_a_terminal() {
    assert_eq!(plain(c::SYS_ioctl, &[0, c::TCGETS as u64]), ALLOW);
    assert_eq!(plain(c::SYS_ioctl, &[0, c::TIOCSTI as u64]), KILL);
    assert_eq!(plain(c::SYS_ioctl, &[0, c::TIOCSCTTY as u64]), EPERM);
    // With a device, its driver's commands are allowed, and these are not.
    let with_device = |command: u64| verdict(true, c::SYS_ioctl, [0, command, 0, 0, 0, 0]);
    assert_eq!(with_device(0xc020_462a), ALLOW);
    assert_eq!(with_device(c::TIOCSTI as u64), KILL);
    assert_eq!(with_device(c::TIOCLINUX as u64), KILL);
    // The kernel looks at 32 bits of a command: the others must not hide it.
    assert_eq!(with_device(c::TIOCSTI as u64 | 1 << 32), KILL);
}

#[test]
fn memory_is_counted_and_never_becomes_code() {
    let map = |prot: c::c_int, flags: c::c_int| {
        plain(c::SYS_mmap, &[0, 4_096, prot as u64, flags as u64])
    };
    let (data, code) = (c::PROT_READ | c::PROT_WRITE, c::PROT_READ | c::PROT_EXEC);
    assert_eq!(map(data, c::MAP_PRIVATE | c::MAP_ANONYMOUS), ALLOW);
    assert_eq!(map(c::PROT_READ, c::MAP_SHARED), ALLOW, "a file");
    let shared = map(data, c::MAP_SHARED | c::MAP_ANONYMOUS);
    assert_eq!(shared, EPERM, "RLIMIT_DATA does not count it");
    assert_eq!(map(code, c::MAP_PRIVATE), EPERM);
    let protect = |prot: c::c_int| plain(c::SYS_mprotect, &[0, 4_096, prot as u64]);
    assert_eq!(protect(data), ALLOW);
    assert_eq!(protect(code), EPERM);
    assert_eq!(plain(c::SYS_prlimit64, &[0, 7, 0]), ALLOW);
    assert_eq!(plain(c::SYS_prlimit64, &[0, 7, 0x7fff_0000_0000]), EPERM);
}

#[test]
fn each_call_has_one_verdict() {
    let mut seen = std::collections::BTreeSet::new();
    for call in ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .chain(FATAL)
        .chain(FATAL_HERE)
    {
        assert!(seen.insert(call), "{call} is named twice");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_other_abi_of_the_processor_is_closed() {
    let x32 = 0x4000_0000;
    assert_eq!(plain(c::SYS_read | x32, &[]), EPERM);
    assert_eq!(plain(c::SYS_ptrace | x32, &[]), EPERM);
}
