//! A unified kernel image: the stub of systemd-boot with kernel, initramfs and arguments as sections of its own
//! (<https://uapi-group.org/specifications/specs/unified_kernel_image/>).
//!
//! The file is the stub, its section table longer by four, and the contents appended. Nothing in it is moved: the table
//! grows into the room that headers have before the first section.

use super::MediaError;

/// Sections lie at multiples of this in memory.
const PAGE: u64 = 4096;
/// Initialised data that is read.
const READ_ONLY_DATA: u32 = 0x4000_0040;
/// Length of an entry of the section table.
const ENTRY: usize = 40;
/// Offset of the PE header's offset in a DOS header.
const PE_OFFSET: usize = 0x3C;
/// Length of signature and COFF header, before the optional header.
const COFF: usize = 24;

/// Offsets in the optional header of PE32+ (Microsoft PE format, "Optional Header").
mod optional {
    pub const MAGIC: usize = 0;
    pub const FILE_ALIGNMENT: usize = 36;
    pub const SIZE_OF_IMAGE: usize = 56;
    pub const SIZE_OF_HEADERS: usize = 60;
    pub const CHECKSUM: usize = 64;
    pub const PE32_PLUS: u16 = 0x20B;
}

/// Makes the program.
pub fn uki(stub: &[u8], kernel: &[u8], initramfs: &[u8], arguments: &str) -> Result<Vec<u8>, MediaError> {
    let release = b"ID=g8os\nPRETTY_NAME=\"g8os\"\n";
    let sections: [(&str, &[u8]); 4] =
        [(".osrel", release), (".cmdline", arguments.as_bytes()), (".initrd", initramfs), (".linux", kernel)];
    let pe = word32(stub, PE_OFFSET)? as usize;
    if stub.get(pe..pe + 4) != Some(b"PE\0\0") {
        return Err(MediaError::Stub("it is no PE file"));
    }
    let count = usize::from(word16(stub, pe + 6)?);
    let header = pe + COFF;
    let table = header + usize::from(word16(stub, pe + 20)?);
    if word16(stub, header + optional::MAGIC)? != optional::PE32_PLUS {
        return Err(MediaError::Stub("it is no program for 64 bits"));
    }
    let file_alignment = u64::from(word32(stub, header + optional::FILE_ALIGNMENT)?);
    if !file_alignment.is_power_of_two() || file_alignment > PAGE {
        return Err(MediaError::Stub("its alignment is absurd"));
    }
    let end = table + (count + sections.len()) * ENTRY;
    if end > word32(stub, header + optional::SIZE_OF_HEADERS)? as usize {
        return Err(MediaError::Stub("its headers have no room for more sections"));
    }
    let mut image = stub.to_vec();
    pad(&mut image, file_alignment);
    let mut address = u64::from(word32(stub, header + optional::SIZE_OF_IMAGE)?).next_multiple_of(PAGE);
    for (number, (name, content)) in sections.iter().enumerate() {
        let offset = number32(image.len() as u64)?;
        image.extend_from_slice(content);
        pad(&mut image, file_alignment);
        let size = number32(content.len() as u64)?;
        let mut entry = [0; ENTRY];
        entry[..name.len()].copy_from_slice(name.as_bytes());
        put(&mut entry, 8, size);
        put(&mut entry, 12, number32(address)?);
        put(&mut entry, 16, number32(image.len() as u64)? - offset);
        put(&mut entry, 20, offset);
        put(&mut entry, 36, READ_ONLY_DATA);
        let at = table + (count + number) * ENTRY;
        image[at..at + ENTRY].copy_from_slice(&entry);
        address = (address + u64::from(size)).next_multiple_of(PAGE);
    }
    let sections =
        u16::try_from(count + sections.len()).map_err(|_| MediaError::Stub("too many sections"))?;
    image[pe + 6..pe + 8].copy_from_slice(&sections.to_le_bytes());
    put(&mut image, header + optional::SIZE_OF_IMAGE, number32(address)?);
    put(&mut image, header + optional::CHECKSUM, 0);
    Ok(image)
}

fn pad(image: &mut Vec<u8>, to: u64) {
    image.resize((image.len() as u64).next_multiple_of(to) as usize, 0);
}

fn word16(bytes: &[u8], at: usize) -> Result<u16, MediaError> {
    let word = bytes.get(at..at + 2).ok_or(MediaError::Stub("it is cut off"))?;
    Ok(u16::from_le_bytes(word.try_into().expect("two bytes were taken")))
}

fn word32(bytes: &[u8], at: usize) -> Result<u32, MediaError> {
    let word = bytes.get(at..at + 4).ok_or(MediaError::Stub("it is cut off"))?;
    Ok(u32::from_le_bytes(word.try_into().expect("four bytes were taken")))
}

fn number32(number: u64) -> Result<u32, MediaError> {
    u32::try_from(number).map_err(|_| MediaError::Stub("kernel and initramfs have more than 4 GiB"))
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PE file of one section, with `room` bytes for headers.
    fn stub(room: usize) -> Vec<u8> {
        let (pe, optional_size) = (0x80, 240);
        let mut stub = vec![0; room + 512];
        stub[..2].copy_from_slice(b"MZ");
        put(&mut stub, PE_OFFSET, pe as u32);
        stub[pe..pe + 4].copy_from_slice(b"PE\0\0");
        stub[pe + 6] = 1;
        stub[pe + 20] = optional_size;
        let header = pe + COFF;
        stub[header..header + 2].copy_from_slice(&optional::PE32_PLUS.to_le_bytes());
        put(&mut stub, header + optional::FILE_ALIGNMENT, 512);
        put(&mut stub, header + optional::SIZE_OF_IMAGE, 0x5010);
        put(&mut stub, header + optional::SIZE_OF_HEADERS, room as u32);
        stub
    }

    #[test]
    fn each_section_is_where_its_header_says_and_none_overlap() {
        let (kernel, initramfs) = (vec![7; 5000], vec![9; 12_345]);
        let image = uki(&stub(1024), &kernel, &initramfs, "quiet").unwrap();
        let parsed = goblin::pe::PE::parse(&image).unwrap();
        let mut last = 0x5010;
        let expected: [(&str, &[u8]); 3] =
            [(".cmdline", b"quiet"), (".initrd", &initramfs), (".linux", &kernel)];
        for (name, content) in expected {
            let section = parsed.sections.iter().find(|section| section.name().unwrap() == name).unwrap();
            let start = section.pointer_to_raw_data as usize;
            assert_eq!(&image[start..start + section.virtual_size as usize], content, "{name}");
            assert!(
                u64::from(section.virtual_address).is_multiple_of(PAGE) && section.virtual_address >= last
            );
            last = section.virtual_address + section.virtual_size;
        }
        let size = parsed.header.optional_header.unwrap().windows_fields.size_of_image;
        assert!(size >= last);
    }

    #[test]
    fn a_stub_without_room_or_with_damage_is_refused() {
        for bad in [stub(520), stub(1024)[..200].to_vec(), Vec::new(), vec![0; 4096]] {
            assert!(matches!(uki(&bad, b"k", b"i", ""), Err(MediaError::Stub(_))));
        }
    }
}
