//! Programs and libraries, and for which machine they are.
//!
//! ```text
//! ELF   7f 45 4c 46  class  order  ..  at 18: machine
//! PE    4d 5a  ..  at 60: where "PE" 0 0 stands, and behind it the machine
//! ```

use crate::dwarfs::write::codec::Machine;

/// The machine that a file with this beginning is for, if there is a filter for its code.
pub(super) fn find(head: &[u8]) -> Option<Machine> {
    if head.starts_with(b"\x7fELF") { Machine::of_elf(head) } else { of_pe(head) }
}

/// All machines.
pub(super) const ALL: [Machine; 8] = [
    Machine::X86,
    Machine::Arm,
    Machine::ArmThumb,
    Machine::Arm64,
    Machine::PowerPc,
    Machine::Ia64,
    Machine::Sparc,
    Machine::RiscV,
];

/// Name of the category of a machine's code.
pub(super) const fn category(machine: Machine) -> &'static str {
    match machine {
        Machine::X86 => "binary/x86",
        Machine::Arm => "binary/arm",
        Machine::ArmThumb => "binary/armthumb",
        Machine::Arm64 => "binary/arm64",
        Machine::PowerPc => "binary/powerpc",
        Machine::Ia64 => "binary/ia64",
        Machine::Sparc => "binary/sparc",
        Machine::RiscV => "binary/riscv",
    }
}

/// Where a PE file says where its header is.
const PE_PLACE: usize = 60;

fn of_pe(head: &[u8]) -> Option<Machine> {
    let place = head.strip_prefix(b"MZ").and_then(|_| head.get(PE_PLACE..)?.first_chunk())?;
    let header = head.get(usize::try_from(u32::from_le_bytes(*place)).ok()?..)?.strip_prefix(b"PE\0\0")?;
    match u16::from_le_bytes(*header.first_chunk()?) {
        0x014c | 0x8664 => Some(Machine::X86),
        0x01c0 => Some(Machine::Arm),
        0x01c2 | 0x01c4 => Some(Machine::ArmThumb),
        0xaa64 => Some(Machine::Arm64),
        0x0200 => Some(Machine::Ia64),
        0x5032 | 0x5064 => Some(Machine::RiscV),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(class: u8, order: u8, machine: [u8; 2]) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
        head[18..20].copy_from_slice(&machine);
        head
    }

    fn pe(place: u32, machine: u16) -> Vec<u8> {
        let mut head = vec![0; 300];
        head[..2].copy_from_slice(b"MZ");
        head[60..64].copy_from_slice(&place.to_le_bytes());
        if let Some(header) = head.get_mut(place as usize..place as usize + 6) {
            header[..4].copy_from_slice(b"PE\0\0");
            header[4..].copy_from_slice(&machine.to_le_bytes());
        }
        head
    }

    #[test]
    fn machines_are_told_from_the_head() {
        for (head, expected) in [
            (elf(2, 1, [62, 0]), Some(Machine::X86)),
            (elf(1, 1, [40, 0]), Some(Machine::Arm)),
            (elf(2, 1, [183, 0]), Some(Machine::Arm64)),
            (elf(2, 2, [0, 21]), Some(Machine::PowerPc)),
            (elf(2, 1, [21, 0]), None),
            (elf(2, 3, [62, 0]), None),
            (elf(2, 1, [62, 0])[..19].to_vec(), None),
            (pe(128, 0x8664), Some(Machine::X86)),
            (pe(128, 0xaa64), Some(Machine::Arm64)),
            (pe(128, 0x1234), None),
            (pe(10_000, 0x8664), None),
            (pe(u32::MAX, 0x8664), None),
            (pe(128, 0x8664)[..133].to_vec(), None),
            (b"MZ".to_vec(), None),
            (b"#!/bin/sh".to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(find(&head), expected, "{:?}", head.get(..20));
        }
    }
}
