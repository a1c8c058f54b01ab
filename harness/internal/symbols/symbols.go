// Package symbols names the function, the file and the line of an address in an ELF file, for reports about a guest
// that has crashed or spins. It reads the symbol table and, if the file has it, DWARF's line table.
package symbols

import (
	"cmp"
	"debug/dwarf"
	"debug/elf"
	"fmt"
	"path"
	"slices"
	"sort"
)

// A Table has the functions of ELF files.
type Table struct {
	functions []function // by address
	code      []section
	lines     []*dwarf.Data
}

type function struct {
	name       string
	begin, end uint64 // end is 0 if the file does not have the size
}

// A section holds code.
type section struct{ begin, end uint64 }

// maxExpanded bounds the memory for a file's compressed sections. A small file may name any size.
const maxExpanded = 256 << 20

// Open reads the symbols of files. It takes a file that it cannot read for one without symbols, because the caller
// reports another failure.
func Open(files ...string) *Table {
	t := new(Table)
	for _, file := range files {
		if f, err := elf.Open(file); err == nil {
			t.add(f)
			f.Close()
		}
	}
	slices.SortFunc(t.functions, func(a, b function) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end)) // a name with a size comes last and counts
	})
	return t
}

func (t *Table) add(f *elf.File) {
	expanded := uint64(0)
	for _, s := range f.Sections {
		if s.Type != elf.SHT_NOBITS && s.Size > s.FileSize {
			expanded += min(s.Size, maxExpanded+1)
		}
		if expanded > maxExpanded {
			return
		}
		if s.Flags&elf.SHF_EXECINSTR != 0 && s.Size > 0 {
			t.code = append(t.code, section{s.Addr, s.Addr + s.Size})
		}
	}
	symbols, err := f.Symbols()
	if err != nil {
		return // stripped
	}
	for _, s := range symbols {
		kind := elf.ST_TYPE(s.Info)
		switch {
		case kind != elf.STT_FUNC && kind != elf.STT_NOTYPE, s.Section == elf.SHN_UNDEF, s.Section >= elf.SHN_LORESERVE:
			continue // data, or no place in the file
		case s.Name == "", s.Name[0] == '$': // ARM's mapping symbols, such as $a and $d
			continue
		}
		begin := s.Value
		if f.Machine == elf.EM_ARM && kind == elf.STT_FUNC {
			begin &^= 1 // the bit of Thumb code
		}
		fn := function{name: s.Name, begin: begin}
		if s.Size > 0 {
			fn.end = begin + s.Size
		}
		if t.isCode(begin) {
			t.functions = append(t.functions, fn)
		}
	}
	if d, err := f.DWARF(); err == nil {
		t.lines = append(t.lines, d)
	}
}

func (t *Table) isCode(address uint64) bool {
	return slices.ContainsFunc(t.code, func(s section) bool { return s.begin <= address && address < s.end })
}

// Find names the place of an address, such as "k_panic (kernel/fatal.c:53)". The file and the line are missing if
// the ELF file has no line for the address. Find returns "" for an address outside of the functions.
func (t *Table) Find(address uint64) string {
	if !t.isCode(address) {
		return ""
	}
	i := sort.Search(len(t.functions), func(i int) bool { return t.functions[i].begin > address })
	if i == 0 {
		return ""
	}
	fn := t.functions[i-1]
	if fn.end != 0 && address >= fn.end {
		return ""
	}
	if file, line := t.line(address); file != "" {
		return fmt.Sprintf("%s (%s:%d)", fn.name, file, line)
	}
	return fn.name
}

// Begins reports whether an address is the first one of a function.
func (t *Table) Begins(address uint64) bool {
	_, found := slices.BinarySearchFunc(t.functions, address, func(f function, a uint64) int { return cmp.Compare(f.begin, a) })
	return found
}

// line returns the file and the line of an address, or "".
func (t *Table) line(address uint64) (string, int) {
	for _, d := range t.lines {
		unit, err := d.Reader().SeekPC(address)
		if err != nil {
			continue
		}
		lines, err := d.LineReader(unit)
		if err != nil || lines == nil {
			continue
		}
		var entry dwarf.LineEntry
		if lines.SeekPC(address, &entry) == nil && entry.File != nil {
			return path.Clean(entry.File.Name), entry.Line
		}
	}
	return "", 0
}
