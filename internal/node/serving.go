package node

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"dragonload/internal/manifest"
	"dragonload/internal/peer"
	"dragonload/internal/piece"
	"dragonload/internal/store"
	"dragonload/internal/swarm"
)

const (
	// maxServings bounds the shares whose pools are open at a time: who asks for one more is
	// sent away, and gets it from another holder, or later.
	maxServings = 128

	// servingIdle is how long a pool stays open in which no neighbour is left.
	servingIdle = time.Minute
)

// serving is what a download has that downloads nothing: it serves a share from where it
// lies. Its pool is opened when the first member asks for it, and closed when none is
// left, so that a node may share any number of things (docs/adr/0014).
type serving struct {
	number uint64   // of the share
	listed *listing // a finished download of a URL by its content, in place of a share
	held   *held    // a finished download, in place of a share
	files  *store.Shared
	alone  time.Time // since when there is no neighbour; zero: there is one. Belongs to the loop
}

// servings counts the open pools of shares.
type servings struct{ open atomic.Int32 }

// path is where it lies.
func (o offer) path() string {
	if o.listed != nil {
		return o.listed.path
	}
	return o.share.Spec.Path
}

// openOffer opens the pool of what is offered for a neighbour that has opened it.
func (m *membership) openOffer(l *link, said peer.Received, o offer) {
	d, err := m.node.serveOffer(m, o)
	if err == nil {
		select {
		case <-d.attached:
		case <-d.over:
		}
	} else {
		m.node.log.Info("a share is not served", "share", o.path(), "err", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.links[l.id] == l {
		m.opened(l, said)
	}
}

// serveOffer returns the download that serves what is offered, started if need be.
func (n *Node) serveOffer(m *membership, o offer) (*download, error) {
	if n.serving.open.Add(1) > maxServings {
		n.serving.open.Add(-1)
		return nil, fmt.Errorf("%d shares are being served already", maxServings)
	}
	d, err := n.newServing(m, o)
	var before *download
	if err == nil {
		if before, err = n.register(d); err != nil {
			err = errors.Join(err, d.serving.files.Close())
			d.release()
		}
	}
	if err != nil {
		n.serving.open.Add(-1)
		if before != nil && before.serving != nil {
			return before, nil
		}
		return nil, err
	}
	go func() { // ends with the download, which Run waits for
		defer n.tasks.Done()
		defer n.serving.open.Add(-1)
		defer n.leave(d)
		if err := d.run(); err != nil {
			d.log.Info("serving a share has ended", "share", o.path(), "err", err)
		}
	}()
	return d, nil
}

// content is what is offered, and where it lies.
func (o offer) content(n *Node) (t *manifest.Torrent, root string, files []store.SharedFile, err error) {
	if o.listed != nil {
		root, files, err = o.listed.content(n)
		return o.listed.torrent, root, files, err
	}
	library := n.opened()
	if library == nil {
		return nil, "", nil, ErrEnding
	}
	t, root, found, err := library.Content(o.share)
	for _, f := range found {
		files = append(files, store.SharedFile{Path: f.Path, Stamp: store.Stamp{Size: f.Size, Modified: f.Modified, Inode: f.Inode, Changed: f.Changed}})
	}
	return t, root, files, err
}

// suspect says that a file, by its number, was found to be another than it was.
func (o offer) suspect(n *Node, file int) {
	if o.listed != nil {
		n.work.Go(n.checkListed) // who calls reads the file, and does not wait
	} else if library := n.opened(); library != nil {
		library.Suspect(o.share.Number, o.share.Manifest, file)
	}
}

func (n *Node) newServing(m *membership, offered offer) (*download, error) {
	t, root, files, err := offered.content(n)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := t.Write(&text); err != nil {
		return nil, err
	}
	d, err := n.newDownload(Spec{Room: m.name, Manifest: text.Bytes()}, nil, func(Event) {})
	if err != nil {
		return nil, err
	}
	o := store.SharedOptions{Disk: n.opts.Disk, Root: root, Files: files, Layout: d.want.layout, Digests: d.want.digests, Log: n.log}
	o.Changed = func(file int, lost piece.Extent, _ error) {
		d.inbox.post(swarm.PiecesLost{Extents: []piece.Extent{lost}})
		offered.suspect(n, file)
	}
	d.serving = &serving{number: offered.share.Number, listed: offered.listed}
	if d.serving.files, err = store.OpenShared(o); err != nil {
		d.release()
		return nil, err
	}
	d.isSaved.Store(true) // it gives way to a download of the same content
	return d, nil
}

// prepareServing makes the machine of a download that has everything.
func (d *download) prepareServing(opts *swarm.NodeOptions) {
	have := d.serving.files.Have()
	opts.KeepServing, opts.Fetches, opts.Source = true, false, ""
	if d.want != nil {
		none := piece.NewBitfield(have.Len()) // what is lost of the user's files is not for this node to write
		opts.Wanted = &none
		opts.Resume = &swarm.Resume{Pin: d.want.pin(), Have: have}
	} else {
		h := d.serving.held
		opts.Served = true
		opts.Resume = &swarm.Resume{Pin: h.pin(), Incarnation: h.Incarnation, Have: have, Digests: h.digests, Origin: have.Clone()}
	}
}

// beginServing carries out SetGeneration for it.
func (d *download) beginServing(a swarm.SetGeneration) {
	d.genMu.Lock()
	defer d.genMu.Unlock()
	d.gen = &generation{pin: a.Pin, shared: d.serving.files}
	if d.want != nil {
		d.gen.layout, d.gen.digests = d.want.layout, d.want.digests
	} else {
		d.gen.layout = a.Pin.Layout()
	}
}

// restServing ends a download that nobody needs, or whose share was ended.
func (d *download) restServing(now time.Time) {
	s := d.serving
	if s.held != nil {
		return // for as long as the node runs
	}
	if library := d.node.opened(); s.listed == nil && (library == nil || !library.Has(s.number)) || s.listed != nil && s.listed.gone.Load() {
		d.stop()
		return
	}
	switch {
	case len(d.links) > 0:
		s.alone = time.Time{}
	case s.alone.IsZero():
		s.alone = now
	case now.Sub(s.alone) >= servingIdle:
		d.stop()
	}
}

// endServing ends the downloads that serve a share, of whatever manifest it had.
func (n *Node) endServing(number uint64) {
	n.mu.Lock()
	var all []*download
	for _, d := range n.running {
		if d.serving != nil && d.serving.number == number && d.serving.listed == nil && d.serving.held == nil {
			all = append(all, d)
		}
	}
	n.mu.Unlock()
	for _, d := range all {
		d.stop()
		<-d.over
	}
}
