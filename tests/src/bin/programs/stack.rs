//! The stack depth of a BPF program, read from its instructions: each function's deepest access, summed along the
//! deepest chain of calls. The kernel allows 512 bytes for all functions of a chain together.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};

const INSTRUCTION_BYTES: usize = 8;
/// The kernel rounds each frame up (`MAX_BPF_STACK` accounting, kernel/bpf/verifier.c, `round_up_stack_depth`).
const FRAME_ALIGN: u32 = 16;

const FRAME_POINTER: u8 = 10;
const CALL: u8 = 0x85;
/// In the source register of a call: the target is a function of the object, not a helper.
const PSEUDO_CALL: u8 = 1;
const MOV64_REGISTER: u8 = 0xbf;
const ADD64_IMMEDIATE: u8 = 0x07;
const CLASS: u8 = 0x07;
/// BPF_LDX, BPF_ST, BPF_STX.
const LOAD: u8 = 0x01;
const STORE_IMMEDIATE: u8 = 0x02;
const STORE: u8 = 0x03;

/// The place of a function in the object.
type Place = (object::SectionIndex, u64);

/// A function's own use of the stack, and its calls.
struct Function {
    name: String,
    own_bytes: u32,
    calls: Vec<Place>,
}

/// Bytes of stack that each global function (each program) needs, with all functions that it calls.
pub fn depths(elf: &[u8]) -> Result<BTreeMap<String, u32>> {
    let file = object::File::parse(elf).context("the BPF object is no ELF file")?;
    let mut functions = HashMap::new();
    let mut programs = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let section = symbol.section_index().context("a function is in a section")?;
        let place = (section, symbol.address());
        functions.insert(place, function(&file, &symbol)?);
        if symbol.is_global() {
            programs.push(place);
        }
    }
    programs.iter().map(|place| Ok((functions[place].name.clone(), depth(&functions, *place, 0)?))).collect()
}

/// Stack of a function and of the deepest function that it calls.
fn depth(functions: &HashMap<Place, Function>, place: Place, nesting: u32) -> Result<u32> {
    if nesting > 8 {
        bail!("calls nest deeper than the kernel allows");
    }
    let function = functions.get(&place).with_context(|| format!("a call to {place:?} meets no function"))?;
    let mut deepest = 0;
    for call in &function.calls {
        deepest = deepest.max(depth(functions, *call, nesting + 1)?);
    }
    Ok(function.own_bytes.next_multiple_of(FRAME_ALIGN) + deepest)
}

fn function(file: &object::File, symbol: &object::Symbol) -> Result<Function> {
    let section = file.section_by_index(symbol.section_index().context("a function is in a section")?)?;
    let code = section.data()?;
    let (start, end) = (symbol.address() as usize, (symbol.address() + symbol.size()) as usize);
    let mut own_bytes = 0;
    let mut calls = Vec::new();
    // For each register that points into the stack: how many bytes below the frame pointer.
    let mut below: [Option<i32>; 16] = [None; 16];
    for offset in (start..end).step_by(INSTRUCTION_BYTES) {
        let instruction = code.get(offset..offset + INSTRUCTION_BYTES).context("a function ends within its section")?;
        let [opcode, registers, low, high, i0, i1, i2, i3] = instruction.try_into()?;
        let (target, source) = (registers & 0xf, registers >> 4);
        let short = i32::from(i16::from_le_bytes([low, high]));
        let immediate = i32::from_le_bytes([i0, i1, i2, i3]);
        let mut touch = |depth: i32| own_bytes = own_bytes.max(depth.max(0).unsigned_abs());
        match (opcode, opcode & CLASS) {
            (CALL, _) if source == PSEUDO_CALL => calls.push(callee(file, &section, offset as u64, immediate)?),
            (CALL, _) => {}
            (MOV64_REGISTER, _) => {
                below[usize::from(target)] = if source == FRAME_POINTER { Some(0) } else { below[usize::from(source)] };
            }
            (ADD64_IMMEDIATE, _) => {
                below[usize::from(target)] = below[usize::from(target)].map(|bytes| bytes - immediate);
                touch(below[usize::from(target)].unwrap_or(0));
            }
            (_, LOAD) => {
                if source == FRAME_POINTER {
                    touch(-short);
                }
                below[usize::from(target)] = None;
            }
            (_, STORE | STORE_IMMEDIATE) if target == FRAME_POINTER => touch(-short),
            _ => {}
        }
    }
    Ok(Function { name: symbol.name()?.to_owned(), own_bytes, calls })
}

/// The target of a call: its relocation names a symbol or the section. Without a relocation the distance gives the
/// target.
fn callee(file: &object::File, section: &object::Section, offset: u64, immediate: i32) -> Result<Place> {
    let distance = (i64::from(immediate) + 1) * INSTRUCTION_BYTES.cast_signed() as i64;
    let relocation = section.relocations().find(|(at, _)| *at == offset);
    let Some((_, relocation)) = relocation else {
        return Ok((section.index(), offset.checked_add_signed(distance).context("a call before its section")?));
    };
    let RelocationTarget::Symbol(index) = relocation.target() else { bail!("a call is relocated to no symbol") };
    let symbol = file.symbol_by_index(index)?;
    let into = symbol.section_index().context("a called function is in a section")?;
    let start = if symbol.kind() == SymbolKind::Section { distance } else { symbol.address().cast_signed() };
    Ok((into, start.try_into().context("a call before its section")?))
}
