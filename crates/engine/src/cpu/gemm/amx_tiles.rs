//! The matrix tiles of x86-64 (AMX): eight registers tmm0–tmm7 of 16 rows × 64 bytes. `tdpbf16ps` adds to a tile of
//! 16×16 f32 the product of 16×32 bf16 (rows) and 32×16 bf16 (as 16 rows of 16 pairs with consecutive k). `tdpbssd` adds
//! to a tile of 16×16 i32 the product of 16×64 and 64×16 signed bytes (as 16 rows of 16 fours). Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, and volume 1 chapter 18.
//!
//! Rust has no stable intrinsics for them, hence `asm!`. [`Emulated`] does exactly the same in plain code, so that
//! packing and loops can be tested on any machine. On CPUs without tiles, a test runs the real instructions too: it
//! catches the illegal-instruction trap and emulates each.

use super::layout::Rows;

/// A block of 2×2 tiles of C: the unit of work that uses all eight registers.
pub(crate) trait Tiles: 'static {
    /// Configures this thread's eight tile registers with 16 rows of 64 bytes each.
    ///
    /// # Safety
    /// The machine has tiles, and the operating system has granted them
    /// ([`enable_tiles`](crate::cpu::level::enable_tiles)).
    unsafe fn configure();

    /// Releases the tile registers, so that the operating system need not save them.
    ///
    /// # Safety
    /// As `configure`.
    unsafe fn release();

    /// `acc += A·B` (or `=`, unless `accumulate`). `acc` is 32×32 f32, row-major. For each of `blocks` blocks of k, `a`
    /// contains 32 rows of 32 bf16, and `b` two tiles of 16 rows of 16 pairs, for columns 0–15 and 16–31.
    ///
    /// # Safety
    /// This thread's tiles are configured; the 32 rows of `a`, and `b` (2 KB per block), can be read; 4 KB at `acc` can
    /// be written.
    unsafe fn multiply(blocks: usize, a: Rows, b: *const u8, ahead: Rows, acc: *mut f32, accumulate: bool);

    /// As [`multiply`](Self::multiply), of signed bytes: 64 in each row of `a` per block, and 16 fours in each row of `b`;
    /// sums in i32.
    ///
    /// # Safety
    /// As for `multiply`.
    unsafe fn multiply_int8(blocks: usize, a: Rows, b: *const u8, ahead: Rows, acc: *mut i32, accumulate: bool);
}

/// Number of rows of `ahead` of which `multiply` prefetches a cache line into L2 per block. Without prefetching, the
/// tiles wait for each panel that comes from L3: 1.5 instead of 1.8 TFLOP/s per core.
pub(crate) const AHEAD: usize = 4;

pub(crate) use hardware::Hardware;

mod hardware {
    use std::arch::asm;

    use super::{CONFIG, Rows, Tiles};

    /// A product with this instruction: one block of assembly, so that the compiler never has to preserve tiles. B is
    /// loaded with a hint that it is not reused soon: it bypasses L1, and A stays there (2.5 TFLOP/s per core instead of
    /// 2.0). A row of B and half a row of `acc` are both 64 bytes: `line` is used for both strides. It reads 2 KB per
    /// block and writes 4 KB of `acc`.
    macro_rules! multiply {
        ($product:literal, $blocks:ident, $a:ident, $b:ident, $ahead:ident, $acc:ident, $accumulate:ident) => {
            if $accumulate {
                multiply!(
                    $product, $blocks, $a, $b, $ahead, $acc;
                    "tileloadd tmm0, [{acc} + {line}*2]",
                    "tileloadd tmm1, [{acc} + {line}*2 + 64]",
                    "tileloadd tmm2, [{acc} + {line}*2 + 2048]",
                    "tileloadd tmm3, [{acc} + {line}*2 + 2112]"
                )
            } else {
                multiply!(
                    $product, $blocks, $a, $b, $ahead, $acc;
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"
                )
            }
        };
        ($product:literal, $blocks:ident, $a:ident, $b:ident, $ahead:ident, $acc:ident; $($open:literal),*) => {
            asm!(
                $($open,)*
                "test {blocks}, {blocks}",
                "jz 3f",
                "2:",
                "tileloaddt1 tmm6, [{b} + {line}*1]",
                "tileloaddt1 tmm7, [{b} + {line}*1 + 1024]",
                "tileloadd tmm4, [{a} + {row}*1]",
                "tileloadd tmm5, [{lower} + {row}*1]",
                "prefetcht1 [{ahead}]",
                "prefetcht1 [{ahead} + {next}]",
                "prefetcht1 [{third}]",
                "prefetcht1 [{third} + {next}]",
                concat!($product, " tmm0, tmm4, tmm6"),
                concat!($product, " tmm1, tmm4, tmm7"),
                concat!($product, " tmm2, tmm5, tmm6"),
                concat!($product, " tmm3, tmm5, tmm7"),
                "add {a}, {block}",
                "add {lower}, {block}",
                "add {b}, 2048",
                "add {ahead}, 64",
                "add {third}, 64",
                "dec {blocks}",
                "jnz 2b",
                "3:",
                "tilestored [{acc} + {line}*2], tmm0",
                "tilestored [{acc} + {line}*2 + 64], tmm1",
                "tilestored [{acc} + {line}*2 + 2048], tmm2",
                "tilestored [{acc} + {line}*2 + 2112], tmm3",
                blocks = inout(reg) $blocks => _,
                a = inout(reg) $a.at => _,
                lower = inout(reg) $a.at.wrapping_add(16 * $a.row_stride) => _,
                row = in(reg) $a.row_stride,
                block = in(reg) $a.block_stride,
                b = inout(reg) $b => _,
                ahead = inout(reg) $ahead.at => _,
                third = inout(reg) $ahead.at.wrapping_add(2 * $ahead.row_stride) => _,
                next = in(reg) $ahead.row_stride,
                acc = in(reg) $acc,
                line = in(reg) 64usize,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            )
        };
    }

    /// The tiles of the CPU.
    pub(crate) struct Hardware;

    impl Tiles for Hardware {
        unsafe fn configure() {
            // SAFETY: the caller vouches for the instruction; it reads 64 bytes and zeroes all tiles.
            unsafe {
                asm!(
                    "ldtilecfg [{config}]",
                    config = in(reg) &raw const CONFIG,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly, preserves_flags),
                );
            }
        }

        unsafe fn release() {
            // SAFETY: the caller vouches for the instruction.
            unsafe {
                asm!(
                    "tilerelease",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, nomem, preserves_flags),
                );
            }
        }

        #[inline(always)]
        unsafe fn multiply(blocks: usize, a: Rows, b: *const u8, ahead: Rows, acc: *mut f32, accumulate: bool) {
            // SAFETY: the caller vouches for the tiles and the memory.
            unsafe { multiply!("tdpbf16ps", blocks, a, b, ahead, acc, accumulate) }
        }

        #[inline(always)]
        unsafe fn multiply_int8(blocks: usize, a: Rows, b: *const u8, ahead: Rows, acc: *mut i32, accumulate: bool) {
            // SAFETY: as above.
            unsafe { multiply!("tdpbssd", blocks, a, b, ahead, acc, accumulate) }
        }
    }

    /// Four products of full tiles per round with this instruction, on registers only.
    macro_rules! spin {
        ($product:literal, $rounds:expr) => {
            asm!(
                "2:",
                concat!($product, " tmm0, tmm4, tmm6"),
                concat!($product, " tmm1, tmm4, tmm7"),
                concat!($product, " tmm2, tmm5, tmm6"),
                concat!($product, " tmm3, tmm5, tmm7"),
                "dec {rounds}",
                "jnz 2b",
                rounds = inout(reg) $rounds.max(1) => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem),
            )
        };
    }

    impl Hardware {
        /// Four products of full tiles of bf16 (65,536 FLOP) per round, on registers only.
        ///
        /// # Safety
        /// This thread's tiles are configured.
        pub(crate) unsafe fn spin(rounds: u64) {
            // SAFETY: the caller vouches for the tiles.
            unsafe { spin!("tdpbf16ps", rounds) }
        }

        /// As [`spin`](Self::spin), of int8: 131,072 operations per round.
        ///
        /// # Safety
        /// As for `spin`; the CPU has int8 tiles.
        pub(crate) unsafe fn spin_int8(rounds: u64) {
            // SAFETY: the caller vouches for the tiles.
            unsafe { spin!("tdpbssd", rounds) }
        }
    }
}

/// The operand of `ldtilecfg`: palette 1; eight tiles of 64 bytes (u16s from byte 16) by 16 rows (bytes from 48).
#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Config(bytes)
};

#[cfg(test)]
pub(crate) use emulation::Emulated;
#[cfg(all(test, target_os = "linux"))]
pub(crate) use trap::with_tiles;

#[cfg(test)]
mod emulation {
    use std::cell::RefCell;

    use super::{CONFIG, Rows, Tiles};

    const ROWS: usize = 16;
    const WORDS: usize = 16;
    type Tile = [[u32; WORDS]; ROWS];

    /// A thread's tile registers and the instructions that use them.
    pub(super) struct Registers {
        configured: bool,
        tiles: [Tile; 8],
    }

    thread_local! {
        pub(super) static REGISTERS: RefCell<Registers> =
            const { RefCell::new(Registers { configured: false, tiles: [[[0; WORDS]; ROWS]; 8] }) };
    }

    impl Registers {
        pub(super) fn ldtilecfg(&mut self, config: &[u8; 64]) {
            assert_eq!(config, &CONFIG.0, "only full tiles are emulated");
            *self = Registers { configured: true, tiles: [[[0; WORDS]; ROWS]; 8] };
        }

        pub(super) fn tilerelease(&mut self) {
            self.configured = false;
        }

        pub(super) fn tilezero(&mut self, tile: usize) {
            assert!(self.configured);
            self.tiles[tile] = [[0; WORDS]; ROWS];
        }

        /// # Safety
        /// Sixteen rows of 64 bytes, `stride` bytes apart, can be read.
        pub(super) unsafe fn tileloadd(&mut self, tile: usize, from: *const u8, stride: usize) {
            assert!(self.configured);
            for (i, row) in self.tiles[tile].iter_mut().enumerate() {
                // SAFETY: the caller vouches for the rows.
                *row = unsafe { from.add(i * stride).cast::<[u32; WORDS]>().read_unaligned() };
            }
        }

        /// # Safety
        /// Sixteen rows of 64 bytes, `stride` bytes apart, can be written.
        pub(super) unsafe fn tilestored(&self, tile: usize, to: *mut u8, stride: usize) {
            assert!(self.configured);
            for (i, row) in self.tiles[tile].iter().enumerate() {
                // SAFETY: the caller vouches for the rows.
                unsafe { to.add(i * stride).cast::<[u32; WORDS]>().write_unaligned(*row) };
            }
        }

        /// The operation as in the manual: even and odd k are summed separately by fused multiply-adds, then added to
        /// the tile. Subnormal numbers always count as zero.
        pub(super) fn tdpbf16ps(&mut self, c: usize, a: usize, b: usize) {
            assert!(self.configured && c != a && c != b && a != b);
            let flush = |x: f32| {
                if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
            };
            let low = |word: u32| flush(f32::from_bits(word << 16));
            let high = |word: u32| flush(f32::from_bits(word & 0xffff_0000));
            for m in 0..ROWS {
                let mut sums = [[0.0f32; 2]; WORDS];
                for k in 0..WORDS {
                    let pair = self.tiles[a][m][k];
                    for (sums, &word) in sums.iter_mut().zip(&self.tiles[b][k]) {
                        sums[0] = flush(low(pair).mul_add(low(word), sums[0]));
                        sums[1] = flush(high(pair).mul_add(high(word), sums[1]));
                    }
                }
                for (word, sums) in self.tiles[c][m].iter_mut().zip(sums) {
                    *word = flush(flush(f32::from_bits(*word)) + flush(sums[0] + sums[1])).to_bits();
                }
            }
        }

        /// Four products of signed bytes are added to each i32.
        pub(super) fn tdpbssd(&mut self, c: usize, a: usize, b: usize) {
            assert!(self.configured && c != a && c != b && a != b);
            for m in 0..ROWS {
                let mut row = self.tiles[c][m];
                for k in 0..WORDS {
                    let x = self.tiles[a][m][k].to_le_bytes();
                    for (sum, word) in row.iter_mut().zip(&self.tiles[b][k]) {
                        for (x, y) in x.into_iter().zip(word.to_le_bytes()) {
                            *sum = sum.wrapping_add((i32::from(x as i8) * i32::from(y as i8)) as u32);
                        }
                    }
                }
                self.tiles[c][m] = row;
            }
        }
    }

    /// Tiles emulated in plain code.
    pub(crate) struct Emulated;

    /// The product of two by two tiles, with one of the instructions of [`Registers`].
    ///
    /// # Safety
    /// As for [`Tiles::multiply`].
    unsafe fn multiply(
        blocks: usize,
        a: Rows,
        b: *const u8,
        acc: *mut u8,
        accumulate: bool,
        product: fn(&mut Registers, usize, usize, usize),
    ) {
        let corners = [0, 64, 2048, 2112];
        // SAFETY: the caller vouches for the memory: 2 KB per block, 4 KB of `acc`.
        REGISTERS.with_borrow_mut(|tiles| unsafe {
            for (tile, corner) in corners.into_iter().enumerate() {
                match accumulate {
                    true => tiles.tileloadd(tile, acc.add(corner), 128),
                    false => tiles.tilezero(tile),
                }
            }
            for block in 0..blocks {
                let rows = a.at.add(block * a.block_stride);
                tiles.tileloadd(4, rows, a.row_stride);
                tiles.tileloadd(5, rows.add(16 * a.row_stride), a.row_stride);
                tiles.tileloadd(6, b.add(block * 2048), 64);
                tiles.tileloadd(7, b.add(block * 2048 + 1024), 64);
                product(tiles, 0, 4, 6);
                product(tiles, 1, 4, 7);
                product(tiles, 2, 5, 6);
                product(tiles, 3, 5, 7);
            }
            for (tile, corner) in corners.into_iter().enumerate() {
                tiles.tilestored(tile, acc.add(corner), 128);
            }
        });
    }

    impl Tiles for Emulated {
        unsafe fn configure() {
            REGISTERS.with_borrow_mut(|tiles| tiles.ldtilecfg(&CONFIG.0));
        }

        unsafe fn release() {
            REGISTERS.with_borrow_mut(|tiles| tiles.tilerelease());
        }

        unsafe fn multiply(blocks: usize, a: Rows, b: *const u8, _: Rows, acc: *mut f32, accumulate: bool) {
            // SAFETY: by the caller's contract.
            unsafe { multiply(blocks, a, b, acc.cast(), accumulate, Registers::tdpbf16ps) }
        }

        unsafe fn multiply_int8(blocks: usize, a: Rows, b: *const u8, _: Rows, acc: *mut i32, accumulate: bool) {
            // SAFETY: by the caller's contract.
            unsafe { multiply(blocks, a, b, acc.cast(), accumulate, Registers::tdpbssd) }
        }
    }
}

/// Lets the real tile instructions run on a CPU without tiles: each raises SIGILL, and the handler decodes and emulates
/// it.
#[cfg(all(test, target_os = "linux"))]
mod trap {
    use std::sync::Mutex;

    use super::emulation::REGISTERS;
    use crate::cpu::level::enable_tiles;

    /// The general registers in the order of their encoding.
    const GENERAL: [i32; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];

    /// Runs `body` where tile instructions work: on the CPU's tiles if it has them, otherwise with the trap handler.
    pub(crate) fn with_tiles<T>(body: impl FnOnce() -> T) -> T {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        if enable_tiles() {
            return body();
        }
        let _guard = ONE_AT_A_TIME.lock();
        // SAFETY: a handler of the right type; the previous one is restored.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut previous: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = emulate as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(libc::SIGILL, &action, &mut previous), 0);
            let result = body();
            libc::sigaction(libc::SIGILL, &previous, std::ptr::null_mut());
            result
        }
    }

    extern "C" fn emulate(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the operating system passes the registers at the instruction that trapped; `start` points to that
        // instruction.
        unsafe {
            let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
            let start = registers[libc::REG_RIP as usize] as *const u8;
            match instruction(start, registers) {
                Some(length) => registers[libc::REG_RIP as usize] += length as i64,
                // Not an emulated instruction: restore the default action, so that it traps again and ends the process.
                None => {
                    libc::signal(libc::SIGILL, libc::SIG_DFL);
                }
            }
        }
    }

    /// Emulates the instruction at `code` and returns its length; `None` if it is not one of the eight.
    unsafe fn instruction(code: *const u8, registers: &[i64; 23]) -> Option<usize> {
        // SAFETY: the CPU read these bytes as an instruction before it trapped.
        let byte = |i: usize| unsafe { *code.add(i) };
        // The three-byte VEX prefix, map 0F 38, 128 bits, W = 0.
        let (flags, more) = (byte(1), byte(2));
        if byte(0) != 0xc4 || flags & 0x1f != 2 || more & 0x84 != 0 {
            return None;
        }
        let [r, x, b] = [7, 6, 5].map(|bit| usize::from(!flags >> bit & 1) << 3);
        let (third, prefix, opcode, form) = (usize::from(!more >> 3 & 15), more & 3, byte(3), byte(4));
        let (mode, reg, rm) = (form >> 6, usize::from(form >> 3 & 7) | r, usize::from(form & 7));
        let general = |number: usize| registers[GENERAL[number] as usize] as usize;
        // A memory operand: base plus displacement, scaled index; and the end of the instruction.
        let (mut at, mut stride, mut end) = (0usize, 0, 5);
        if mode != 3 {
            let mut base = rm | b;
            if rm == 4 {
                let sib = byte(5);
                end = 6;
                base = usize::from(sib & 7) | b;
                let index = usize::from(sib >> 3 & 7) | x;
                stride = if index == 4 { 0 } else { general(index) << (sib >> 6) };
            }
            if mode == 0 && base & 7 == 5 {
                return None; // an absolute or RIP-relative address, which the kernel does not use
            }
            at = general(base);
            if mode == 1 {
                at = at.wrapping_add_signed((byte(end) as i8).into());
                end += 1;
            } else if mode == 2 {
                let bytes = [byte(end), byte(end + 1), byte(end + 2), byte(end + 3)];
                at = at.wrapping_add_signed(i32::from_le_bytes(bytes) as isize);
                end += 4;
            }
        }
        REGISTERS.with_borrow_mut(|tiles| {
            match (opcode, prefix, mode == 3) {
                // SAFETY: the memory that the instruction would have read.
                (0x49, 0, false) if reg == 0 => unsafe { tiles.ldtilecfg(&*(at as *const [u8; 64])) },
                (0x49, 0, true) if form == 0xc0 => tiles.tilerelease(),
                (0x49, 3, true) => tiles.tilezero(reg),
                // SAFETY: as above; the stride is in the index register. The load with a hint (prefix 1) loads the
                // same.
                (0x4b, 1 | 3, false) => unsafe { tiles.tileloadd(reg, at as *const u8, stride) },
                // SAFETY: as above, for writing.
                (0x4b, 2, false) => unsafe { tiles.tilestored(reg, at as *mut u8, stride) },
                (0x5c, 2, true) => tiles.tdpbf16ps(reg, rm | b, third),
                (0x5e, 3, true) => tiles.tdpbssd(reg, rm | b, third),
                _ => return None,
            }
            Some(end)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    /// Operands in the layout of panels (32 rows, 32 columns), and their product in f64.
    fn operands(blocks: usize) -> (Vec<bf16>, Vec<bf16>, Vec<f64>) {
        let number = |i: usize| bf16::from_f32(((i * 7919 + 13) % 1009) as f32 / 512.0 - 1.0);
        let a: Vec<bf16> = (0..blocks * 1024).map(number).collect();
        let b: Vec<bf16> = (0..blocks * 1024).map(|i| number(i * 31 + 5)).collect();
        let mut c = vec![0.0; 1024];
        for k in 0..blocks * 32 {
            let (block, k) = (k / 32 * 1024, k % 32);
            for row in 0..32 {
                for col in 0..32 {
                    let y = b[block + col / 16 * 512 + k / 2 * 32 + col % 16 * 2 + k % 2];
                    c[row * 32 + col] += a[block + row * 32 + k].to_f64() * y.to_f64();
                }
            }
        }
        (a, b, c)
    }

    fn multiply<T: Tiles>(blocks: usize, a: &[bf16], b: &[bf16], accumulate: bool) -> Vec<f32> {
        let mut acc: Vec<f32> = (0..1024).map(|i| i as f32).collect();
        // SAFETY: the tiles are configured; the operands have `blocks` blocks; `acc` has 4 KB.
        unsafe {
            T::configure();
            let a = Rows { at: a.as_ptr().cast(), row_stride: 64, block_stride: 2048 };
            T::multiply(blocks, a, b.as_ptr().cast(), a, acc.as_mut_ptr(), accumulate);
            T::release();
        }
        acc
    }

    /// The same for bytes, which take all values.
    fn multiply_int8<T: Tiles>(blocks: usize, accumulate: bool) -> (Vec<i32>, Vec<i32>) {
        let number = |i: usize| (i * 7919 + i / 251 * 31) as i8;
        let a: Vec<i8> = (0..blocks * 2048).map(number).collect();
        let b: Vec<i8> = (0..blocks * 2048).map(|i| number(i * 31 + 5)).collect();
        let start: Vec<i32> = (0..1024).map(|i| i - 500).collect();
        let mut expected = if accumulate { start.clone() } else { vec![0; 1024] };
        for k in 0..blocks * 64 {
            let (block, k) = (k / 64 * 2048, k % 64);
            for row in 0..32 {
                for col in 0..32 {
                    let y = b[block + col / 16 * 1024 + k / 4 * 64 + col % 16 * 4 + k % 4];
                    expected[row * 32 + col] += i32::from(a[block + row * 64 + k]) * i32::from(y);
                }
            }
        }
        let mut acc = start;
        // SAFETY: as above.
        unsafe {
            T::configure();
            let a = Rows { at: a.as_ptr().cast(), row_stride: 64, block_stride: 2048 };
            T::multiply_int8(blocks, a, b.as_ptr().cast(), a, acc.as_mut_ptr(), accumulate);
            T::release();
        }
        (acc, expected)
    }

    #[test]
    fn tiles_multiply_int8() {
        for (blocks, accumulate) in [(0, false), (0, true), (1, false), (3, true)] {
            let (found, expected) = multiply_int8::<Emulated>(blocks, accumulate);
            assert_eq!(found, expected, "emulated, {blocks} blocks, accumulate {accumulate}");
            #[cfg(target_os = "linux")]
            {
                let (found, expected) = with_tiles(|| multiply_int8::<Hardware>(blocks, accumulate));
                assert_eq!(found, expected, "{blocks} blocks, accumulate {accumulate}");
            }
        }
    }

    #[test]
    fn emulated_tiles_multiply() {
        for blocks in [0, 1, 3] {
            let (a, b, expected) = operands(blocks);
            for accumulate in [false, true] {
                let found = multiply::<Emulated>(blocks, &a, &b, accumulate);
                for (i, (x, y)) in found.iter().zip(&expected).enumerate() {
                    let y = y + if accumulate { i as f64 } else { 0.0 };
                    assert!(
                        (f64::from(*x) - y).abs() < 1e-4 + 1e-6 * y.abs(),
                        "{blocks} blocks, element {i}: {x}, expected {y}"
                    );
                }
            }
        }
    }

    /// The assembly, on real tiles or with the trap handler, gives the same bits as the emulation.
    #[cfg(target_os = "linux")]
    #[test]
    fn tile_instructions_equal_their_emulation() {
        for blocks in [0, 1, 3] {
            let (a, b, _) = operands(blocks);
            for accumulate in [false, true] {
                let expected = multiply::<Emulated>(blocks, &a, &b, accumulate);
                let found = with_tiles(|| multiply::<Hardware>(blocks, &a, &b, accumulate));
                assert_eq!(found, expected, "{blocks} blocks, accumulate {accumulate}");
            }
        }
        with_tiles(|| {
            // SAFETY: configured first.
            unsafe {
                Hardware::configure();
                Hardware::spin(2);
                Hardware::spin_int8(2);
                Hardware::release();
            }
        });
    }
}
