//! Memory that is handed out and never taken back. Right only because every call has a fresh
//! instance: what a call leaves behind goes with it. It starts in a static area, so that most calls
//! never ask the host for memory, which is what makes a fresh instance cheap.

use std::cell::Cell;

/// Addresses, handed out from a growing end. It reads and writes no memory itself.
#[derive(Debug)]
pub(crate) struct Bump {
    /// The first address that is free; 0 before the first use.
    next: Cell<usize>,
    /// The address after the last one.
    end: Cell<usize>,
}

impl Bump {
    pub(crate) const fn new() -> Self {
        Self {
            next: Cell::new(0),
            end: Cell::new(0),
        }
    }

    /// Continues in another area, or further in this one.
    pub(crate) fn add(&self, start: usize, end: usize) {
        if start != self.end.get() {
            self.next.set(start);
        }
        self.end.set(end);
    }

    /// Whether there is an area at all.
    pub(crate) fn is_new(&self) -> bool {
        self.end.get() == 0
    }

    /// The address of `size` free bytes at a multiple of `align`, a power of two.
    pub(crate) fn take(&self, size: usize, align: usize) -> Option<usize> {
        let start = self.next.get().checked_add(align - 1)? & !(align - 1);
        let next = start.checked_add(size)?;
        if self.is_new() || next > self.end.get() {
            return None;
        }
        self.next.set(next);
        Some(start)
    }

    /// Lets what was handed out last become longer or shorter in its place; says whether it could.
    pub(crate) fn resize_last(&self, start: usize, size: usize, new_size: usize) -> bool {
        let is_last = start.checked_add(size) == Some(self.next.get());
        match start.checked_add(new_size) {
            Some(next) if is_last && next <= self.end.get() => {
                self.next.set(next);
                true
            }
            _ => false,
        }
    }
}

#[cfg(all(target_family = "wasm", feature = "arena"))]
#[expect(unsafe_code, reason = "a global allocator is unsafe by its trait")]
mod global {
    use std::{
        alloc::{GlobalAlloc, Layout},
        arch::wasm32,
        cell::UnsafeCell,
        ptr,
    };

    use super::Bump;

    /// Enough for a message of some 25 KB and the work on it. It is zero, so it adds nothing to the
    /// component, and what is not touched costs the host nothing.
    const STATIC_BYTES: usize = 256 * 1024;
    const PAGE: usize = 64 * 1024;
    /// What is asked of the host at least, in pages: asking is dear, so it is done rarely.
    const PAGES: usize = 16;

    #[repr(align(16))]
    struct Area(UnsafeCell<[u8; STATIC_BYTES]>);

    struct Arena(Bump);

    // SAFETY: a component has one thread.
    unsafe impl Sync for Area {}
    // SAFETY: as above.
    unsafe impl Sync for Arena {}

    static AREA: Area = Area(UnsafeCell::new([0; STATIC_BYTES]));

    #[global_allocator]
    static ARENA: Arena = Arena(Bump::new());

    impl Arena {
        #[cold]
        fn take_more(&self, size: usize, align: usize) -> Option<usize> {
            if self.0.is_new() {
                let start = AREA.0.get().addr();
                self.0.add(start, start + STATIC_BYTES);
                if let Some(taken) = self.0.take(size, align) {
                    return Some(taken);
                }
            }
            let needed = size.checked_add(align)?.div_ceil(PAGE);
            // Near the host's limit a large step is refused where a small one is not.
            for pages in [needed.max(PAGES), needed] {
                let before = wasm32::memory_grow::<0>(pages);
                if before != usize::MAX {
                    self.0
                        .add(before * PAGE, before.checked_add(pages)?.checked_mul(PAGE)?);
                    return self.0.take(size, align);
                }
            }
            None
        }
    }

    // SAFETY: addresses come from the static area or from memory that the host has just added; each
    // is handed out once, unless it was the last one and was given back.
    unsafe impl GlobalAlloc for Arena {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let (size, align) = (layout.size(), layout.align());
            match self.0.take(size, align).or_else(|| self.take_more(size, align)) {
                Some(address) => ptr::with_exposed_provenance_mut(address),
                None => ptr::null_mut(),
            }
        }

        unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
            self.0.resize_last(start.addr(), layout.size(), 0);
        }

        unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
            if new_size <= layout.size() || self.0.resize_last(start.addr(), layout.size(), new_size) {
                return start;
            }
            // SAFETY: the caller promises that the new size fits the old alignment.
            let new = unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
            if !new.is_null() {
                // SAFETY: both areas are at least as long as the old one, and they do not overlap:
                // the new one was free.
                unsafe { ptr::copy_nonoverlapping(start, new, layout.size()) };
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bump() -> Bump {
        let bump = Bump::new();
        bump.add(1_000, 2_000);
        bump
    }

    #[test]
    fn there_is_nothing_before_the_first_area() {
        let bump = Bump::new();
        assert!(bump.is_new());
        assert_eq!(bump.take(0, 1), None);
    }

    #[test]
    fn addresses_follow_each_other_at_their_alignment() {
        let bump = bump();
        assert_eq!(bump.take(3, 1), Some(1_000));
        assert_eq!(bump.take(8, 8), Some(1_008));
        assert_eq!(bump.take(1, 1), Some(1_016));
    }

    #[test]
    fn the_end_is_kept() {
        let bump = bump();
        assert_eq!(bump.take(1_000, 1), Some(1_000));
        assert_eq!(bump.take(1, 1), None);
        assert_eq!(bump.take(usize::MAX, 1), None);
        assert_eq!(bump.take(usize::MAX - 1_001, 16), None);
    }

    #[test]
    fn the_last_one_grows_in_its_place_and_is_given_back() {
        let bump = bump();
        let first = bump.take(10, 1).unwrap();
        assert!(bump.resize_last(first, 10, 20));
        let second = bump.take(10, 1).unwrap();
        assert_eq!(second, 1_020);
        assert!(!bump.resize_last(first, 20, 30));
        assert!(!bump.resize_last(second, 10, 2_000));
        assert!(bump.resize_last(second, 10, 0));
        assert_eq!(bump.take(1, 1), Some(1_020));
    }

    #[test]
    fn an_area_that_follows_is_joined() {
        let bump = bump();
        bump.take(900, 1);
        bump.add(2_000, 3_000);
        assert_eq!(bump.take(1_000, 1), Some(1_900));
        bump.add(5_000, 6_000);
        assert_eq!(bump.take(1, 1), Some(5_000));
    }
}
