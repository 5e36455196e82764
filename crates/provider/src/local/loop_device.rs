//! Loop devices that go away by themselves.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use linux_raw_sys::loop_device::{
    LO_FLAGS_AUTOCLEAR, LO_FLAGS_PARTSCAN, LO_FLAGS_READ_ONLY, LOOP_CONFIGURE, LOOP_CTL_GET_FREE, loop_config,
};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter};

/// A loop device over a range of a file. With autoclear, the kernel frees it as
/// soon as neither this nor a mount holds it, however the process ends.
#[derive(Debug)]
pub struct LoopDevice {
    /// The device node.
    pub path: PathBuf,
    /// Keeps the device.
    pub handle: File,
}

/// `LOOP_CTL_GET_FREE`: the number of a free device, as the call's return value (loop(4)).
struct GetFree;

// SAFETY: the request takes no argument and returns a number, as loop(4) says.
unsafe impl Ioctl for GetFree {
    type Output = i32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE as Opcode
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut rustix::ffi::c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

impl LoopDevice {
    /// Sets up a free loop device over `range` of `file`; over all of it, it may have partitions.
    pub fn attach(file: &Path, range: Option<&Range<u64>>, read_only: bool) -> Result<Self> {
        let doing = || format!("attaching {} as a loop device", file.display());
        let backing = OpenOptions::new().read(true).write(!read_only).open(file).with_context(doing)?;
        let control = File::open("/dev/loop-control").with_context(doing)?;
        loop {
            // SAFETY: the request is defined for /dev/loop-control and touches no memory of ours.
            let number =
                unsafe { rustix::ioctl::ioctl(&control, GetFree) }.map_err(io::Error::from).with_context(doing)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let handle = OpenOptions::new().read(true).write(!read_only).open(&path).with_context(doing)?;
            match configure(&handle, &backing, range, read_only) {
                Ok(()) => return Ok(Self { path, handle }),
                // Another process took the same free device first.
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(io::Error::from(errno)).with_context(doing),
            }
        }
    }
}

fn configure(device: &File, backing: &File, range: Option<&Range<u64>>, read_only: bool) -> rustix::io::Result<()> {
    // SAFETY: all-zero bytes are a valid value of this plain C structure.
    let mut config: loop_config = unsafe { std::mem::zeroed() };
    config.fd = backing.as_raw_fd().cast_unsigned();
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR as u32 | if read_only { LO_FLAGS_READ_ONLY as u32 } else { 0 };
    match range {
        Some(range) => {
            config.info.lo_offset = range.start;
            config.info.lo_sizelimit = range.end - range.start;
        }
        // Without it the device has no partitions, even if it is told of them.
        None => config.info.lo_flags |= LO_FLAGS_PARTSCAN as u32,
    }
    // SAFETY: LOOP_CONFIGURE reads one loop_config (loop(4)).
    unsafe { rustix::ioctl::ioctl(device, Setter::<{ LOOP_CONFIGURE as Opcode }, loop_config>::new(config)) }
}
