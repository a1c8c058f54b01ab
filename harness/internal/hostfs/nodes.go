package hostfs

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// maxNodes bounds the files that a guest's kernel knows at once. A file takes some 350 bytes here, and in the
// guest's kernel about 1 KiB.
const maxNodes = 2 << 20

// rootNode is the number of the directory itself.
const rootNode = 1

// A fileID says which file of the host a node is.
type fileID struct {
	dev, ino uint64
	kind     uint32 // unix.S_IFREG and others
}

func identify(st *unix.Stat_t) fileID {
	return fileID{uint64(st.Dev), st.Ino, st.Mode & unix.S_IFMT}
}

// A stamp changes when a file's content does.
type stamp struct{ mtime, ctime, size int64 }

func stampOf(st *unix.Stat_t) stamp { return stamp{st.Mtim.Nano(), st.Ctim.Nano(), st.Size} }

// A node is a file that the guest's kernel knows. A hard-linked file is one node with several names. The
// node loses a name when that is removed or given to another file; files that are open then stay usable.
type node struct {
	id      uint64
	lookups uint64 // how many references the kernel holds
	file    fileID
	places  []place // its names; at most one for a directory, none for the root
	kids    map[string]*node
	told    stamp // of the attributes that the kernel has
	open    map[*handle]struct{}
}

// A place is a name in a directory.
type place struct {
	parent *node
	name   string
}

// nodes are the nodes of a directory. All methods lock it.
type nodes struct {
	mu     sync.Mutex
	limit  int // of the length of byID
	last   uint64
	byID   map[uint64]*node
	byFile map[fileID]*node // the nodes that have a name
	root   *node
}

func newNodes(root fileID) *nodes {
	n := &node{id: rootNode, lookups: 1, file: root}
	return &nodes{limit: maxNodes, last: rootNode, byID: map[uint64]*node{rootNode: n}, byFile: make(map[fileID]*node), root: n}
}

// get returns the node with a number, or nil.
func (t *nodes) get(id uint64) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// path returns a node's path below the root. It returns false if the node has no name any more.
func (t *nodes) path(n *node) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n == t.root {
		return ".", true
	}
	size := 0
	for at := n; at != t.root; at = at.places[0].parent {
		if len(at.places) == 0 {
			return "", false
		}
		size += len(at.places[0].name) + 1
	}
	b := make([]byte, size-1)
	for at, end := n, len(b); at != t.root; at = at.places[0].parent {
		name := at.places[0].name
		end -= copy(b[end-len(name):], name)
		if end > 0 {
			end--
			b[end] = '/'
		}
	}
	return string(b), true
}

// misplaced takes away a node's first name, which leads elsewhere. It returns false if that is the only one.
func (t *nodes) misplaced(n *node) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(n.places) < 2 {
		return false
	}
	t.detach(n.places[0])
	return true
}

// enter returns the node of a name, with one more reference. If the name was another file's before, that
// file's node loses it. It returns ENFILE if the kernel would know too many files.
func (t *nodes) enter(parent *node, name string, st *unix.Stat_t) (*node, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	file := identify(st)
	at := place{parent, name}
	n := parent.kids[name]
	if n != nil && n.file != file {
		t.detach(at)
		n = nil
	}
	if n == nil && st.Nlink > 1 && file.kind != unix.S_IFDIR {
		n = t.byFile[file]
	}
	if n == nil {
		t.last++
		n = &node{id: t.last, file: file}
	}
	if t.byID[n.id] == nil { // it is new, or was forgotten before its kids
		if len(t.byID) >= t.limit {
			return nil, unix.ENFILE
		}
		t.byID[n.id] = n
	}
	t.attach(n, at)
	n.lookups++
	n.told = stampOf(st)
	return n, nil
}

// tell notes the attributes that the kernel gets, and reports whether it had others.
func (t *nodes) tell(n *node, st *unix.Stat_t) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := stampOf(st)
	changed = n.told != now
	n.told = now
	return changed
}

// forget drops references of the kernel. A node without any is gone.
func (t *nodes) forget(id, lookups uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || n == t.root {
		return
	}
	n.lookups -= min(lookups, n.lookups)
	t.drop(n)
}

// drop removes a node that nobody needs.
func (t *nodes) drop(n *node) {
	if n == t.root || n.lookups > 0 {
		return
	}
	delete(t.byID, n.id)
	if len(n.kids) > 0 {
		return // they are forgotten later, and need its name until then
	}
	for len(n.places) > 0 {
		at := n.places[0]
		t.detach(at)
		t.drop(at.parent)
	}
}

// remove takes a name from its node.
func (t *nodes) remove(parent *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.detach(place{parent, name})
}

// move gives a node another name, or exchanges two nodes' names.
func (t *nodes) move(from *node, name string, to *node, newName string, exchange bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before, after := place{from, name}, place{to, newName}
	a, b := from.kids[name], to.kids[newName]
	if a != nil && a == b {
		return // two names of one file: rename does nothing
	}
	t.detach(before)
	t.detach(after)
	if a != nil && !to.below(a) {
		t.attach(a, after)
	}
	if exchange && b != nil && !from.below(b) {
		t.attach(b, before)
	}
}

// below reports whether a directory is another node or below it. A move there would make a ring. The host
// refuses it, unless somebody else moves directories at the same time.
func (n *node) below(other *node) bool {
	for n != other {
		if len(n.places) == 0 {
			return false
		}
		n = n.places[0].parent
	}
	return true
}

// attach gives a node a name that no other node has.
func (t *nodes) attach(n *node, at place) {
	if at.parent.kids[at.name] == n {
		return
	}
	if at.parent.kids == nil {
		at.parent.kids = make(map[string]*node)
	}
	at.parent.kids[at.name] = n
	n.places = append(n.places, at)
	t.byFile[n.file] = n
}

// detach takes a name from its node, if it has one.
func (t *nodes) detach(at place) {
	n := at.parent.kids[at.name]
	if n == nil {
		return
	}
	delete(at.parent.kids, at.name)
	n.places = slices.DeleteFunc(n.places, func(p place) bool { return p == at })
	if len(n.places) == 0 && t.byFile[n.file] == n {
		delete(t.byFile, n.file) // the host may give the number to another file
	}
}

// opened and closed note a node's handles.
func (t *nodes) opened(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h.node.open == nil {
		h.node.open = make(map[*handle]struct{})
	}
	h.node.open[h] = struct{}{}
}

func (t *nodes) closed(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(h.node.open, h)
}

// anyOpen returns a handle of a node, or nil if there is none.
func (t *nodes) anyOpen(n *node) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	for h := range n.open {
		return h
	}
	return nil
}
