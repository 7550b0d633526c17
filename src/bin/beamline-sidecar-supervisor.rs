//! What `beamline-sidecar run --supervised` becomes. A program of its own, because all that a process links is its memory:
//! the sidecar's relocations alone are more than this one needs in all.
#![cfg_attr(target_env = "gnu", no_main)]

/// What the standard library does before `main` costs as much memory as all the rest, for a message on stack overflows. The
/// program that this one takes the place of has done what matters of it.
#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "the C library calls it by this name, and nothing else has it"
)]
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    beamline_sidecar::supervise::main().into()
}

/// Elsewhere only the standard library knows the arguments.
#[cfg(not(target_env = "gnu"))]
fn main() -> std::process::ExitCode {
    beamline_sidecar::supervise::main().into()
}
