//! Pipes as inputs: `/dev/stdin`, a FIFO, `<(command)` of a shell. They are read once, from their beginning to their end.

use std::fs::{File, FileType, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::Arc;

use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

/// Whether a file is read as a pipe: as it comes, until its end.
pub fn is_pipe(kind: FileType) -> bool {
    kind.is_fifo() || kind.is_char_device()
}

/// An open pipe. `T` is what the thread that reads gives to its listener; it stops reading when the listener is gone.
pub struct Pipe<T> {
    source: Source,
    listener: mpsc::Sender<T>,
    runtime: tokio::runtime::Handle,
}

enum Source {
    Fifo(Arc<Receiver>),
    /// A terminal, `/dev/null`: reads block.
    Device(Arc<File>),
}

impl<T> Clone for Pipe<T> {
    fn clone(&self) -> Self {
        let source = match &self.source {
            Source::Fifo(pipe) => Source::Fifo(pipe.clone()),
            Source::Device(file) => Source::Device(file.clone()),
        };
        Pipe { source, listener: self.listener.clone(), runtime: self.runtime.clone() }
    }
}

impl<T: Send> Pipe<T> {
    /// Opens the pipe at `path`; does not wait for somebody who writes. Only on a thread of a tokio runtime that may block.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &str, listener: mpsc::Sender<T>) -> std::io::Result<Self> {
        let is_fifo = std::fs::metadata(path)?.file_type().is_fifo();
        // SUBTLE: without the flag, opening a FIFO waits for a writer, and nothing ends that wait. With it, an unnamed pipe whose writer is
        // gone would never be reported as ended, and opening one does not wait.
        let is_unnamed = path.starts_with("/dev/") || path.starts_with("/proc/");
        let flags = if is_fifo && !is_unnamed { rustix::fs::OFlags::NONBLOCK } else { rustix::fs::OFlags::empty() };
        let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
        let source = match is_fifo {
            true => Source::Fifo(Arc::new(Receiver::from_file(file)?)),
            false => Source::Device(Arc::new(file)),
        };
        Ok(Pipe { source, listener, runtime: tokio::runtime::Handle::current() })
    }

    /// Waits until something can be read, or the pipe has ended.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn wait(&self) -> std::io::Result<()> {
        let Source::Fifo(pipe) = &self.source else { return Ok(()) };
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.listener.closed() => Err(std::io::Error::other("nobody listens any more")),
                ready = pipe.readable() => ready,
            }
        })
    }
}

impl<T> Read for Pipe<T> {
    /// `WouldBlock` when nothing is there yet.
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match &self.source {
            Source::Fifo(pipe) => pipe.try_read(out),
            Source::Device(file) => file.as_ref().read(out),
        }
    }
}
