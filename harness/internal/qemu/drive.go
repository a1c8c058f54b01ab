package qemu

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
)

// A Disk is a virtio block device of the machine. QEMU inherits its files: DiskFiles.
type Disk struct {
	File   string // the user's, for a QEMU that runs without the harness; empty if the disk was empty
	Format string // of the user's file: "raw" or "qcow2"
	Size   int64  // bytes
	Write  bool   // the guest writes to the user's file, and not to an overlay
}

// DiskFiles are the files of a disk from the lowest on: each has the blocks that those below it have not
// got, or has them newer. All but the last are read only.
type DiskFiles struct {
	User    *os.File   // the user's; nil if the disk was empty
	Saved   []*os.File // those of a template, in format qcow2
	Overlay *os.File   // what this machine's guest writes, in format qcow2; nil if the guest writes to the user's file
}

// all returns the files in their order.
func (d DiskFiles) all() (files []*os.File) {
	if d.User != nil {
		files = append(files, d.User)
	}
	files = append(files, d.Saved...)
	if d.Overlay != nil {
		files = append(files, d.Overlay)
	}
	return files
}

// Close closes the files.
func (d DiskFiles) Close() {
	for _, f := range d.all() {
		f.Close()
	}
}

// diskFiles returns the files of all disks, which QEMU inherits from the descriptor firstDiskFD on.
func diskFiles(disks []DiskFiles) (files []*os.File) {
	for _, d := range disks {
		files = append(files, d.all()...)
	}
	return files
}

// DiskSerial returns the serial number by which a guest finds a disk.
func DiskSerial(i int) string { return "disk" + strconv.Itoa(i) }

// diskDevices returns the devices of the disks. Without an answer for a failed request, QEMU would stop the
// machine when the host's disk is full.
func (m Machine) diskDevices() (args []string) {
	for i := range m.Disks {
		args = append(args, "-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%[1]s,werror=report,rerror=report", DiskSerial(i)))
	}
	return args
}

// diskBackends returns what the devices read and write. A file is never searched for its format: a guest that
// writes another format's header into its disk would make QEMU open any file of the host.
func (m Machine) diskBackends(files []DiskFiles) (args []string) {
	fd := firstDiskFD
	for i, d := range m.Disks {
		below := ""
		all := files[i].all()
		for j := range all {
			name, format := fmt.Sprintf("%s-%d", DiskSerial(i), j), "qcow2"
			if j == 0 && files[i].User != nil {
				format = d.Format
			}
			last := j == len(all)-1
			if last {
				name = DiskSerial(i)
			}
			node := map[string]any{
				"driver": format, "node-name": name, "read-only": !last,
				"file": map[string]any{"driver": "file", "filename": "/proc/self/fd/" + strconv.Itoa(fd)},
			}
			if format == "qcow2" {
				node["backing"] = nil // even if the image names a file
			}
			if below != "" {
				node["backing"] = below
			}
			if last && !d.Write {
				node["cache"] = map[string]any{"no-flush": true} // no overlay survives QEMU
				node["discard"] = "unmap"
			}
			text, err := json.Marshal(node)
			if err != nil {
				panic(err) // the map has nothing that JSON lacks
			}
			args = append(args, "-blockdev", string(text))
			below = name
			fd++
		}
	}
	return args
}

// diskDrives returns what the devices read and write if QEMU runs without the harness. QEMU then makes the
// overlays itself.
func (m Machine) diskDrives() (args []string) {
	for i, d := range m.Disks {
		drive := fmt.Sprintf("if=none,id=%s", DiskSerial(i))
		if d.File == "" {
			drive += fmt.Sprintf(",driver=null-co,read-zeroes=on,size=%d", d.Size)
		} else {
			drive += ",format=" + d.Format + ",file=" + escape(d.File)
		}
		if !d.Write {
			drive += ",snapshot=on"
		}
		args = append(args, "-drive", drive)
	}
	return args
}
