package node

import (
	"context"
	"errors"
	"time"

	"dragonload/internal/piece"
	"dragonload/internal/swarm"
)

// stopWithin bounds how long a machine may take to end in good order.
const stopWithin = 2 * time.Second

// run carries the download out. It returns when that has ended and every goroutine
// that worked for it too.
func (d *download) run() error {
	defer d.cancel()
	if err := d.prepare(d.stopping); err != nil {
		d.failure = AsError(err)
	} else {
		d.attach()
		d.turn()
		close(d.inbox.closed)
		d.detach()
	}
	d.cancel()
	d.work.Wait()
	return d.close()
}

// turn is the event loop: the only goroutine that touches the machine. It runs until
// the machine has quit.
func (d *download) turn() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	stop := d.stopping.Done()
	var late <-chan time.Time // runs while the machine is being stopped
	var items []item

	d.meter.rates(sample{at: time.Now()})
	d.step(nil)
	for !d.quit {
		if at, ok := d.deadline(); ok {
			timer.Reset(max(0, at.Sub(d.node.now())))
		} else {
			timer.Stop()
		}
		select {
		case <-d.inbox.wake:
			items = d.inbox.take(items)
			for k, it := range items {
				if !d.quit {
					if it.do != nil {
						it.do()
					} else {
						d.step(it.event)
					}
				}
				d.inbox.done(it)
				items[k] = item{}
			}
		case <-timer.C:
			d.due()
		case <-tick.C:
			d.checkAlone()
			d.progress()
			if d.serving != nil {
				d.restServing(time.Now())
			}
		case <-stop:
			stop = nil
			if d.saved == nil && d.failure == nil {
				d.failure = d.stopped()
			}
			d.step(swarm.Stopping{})
		case <-late:
			d.log.Warn("the machine did not end in time")
			d.quit = true
		}
		if late == nil && (d.failure != nil || stop == nil) {
			late = time.After(stopWithin)
		}
	}
}

// stopped is how a download ends that was told to: by its user, or because the node ends.
func (d *download) stopped() *Error {
	d.node.mu.Lock()
	ended := d.node.ended
	d.node.mu.Unlock()
	if ended {
		return problem("ending", ExitStopped, errors.New("the node is ending; "+d.kept()))
	}
	return problem("stopped", ExitStopped, errors.New("stopped; "+d.kept()))
}

// fail ends the download without its file. The machine is told to stop, so that the
// tracker and the neighbours hear of it.
func (d *download) fail(err error) {
	if d.saved != nil || d.failure != nil || d.quit {
		return
	}
	d.failure = AsError(err)
	d.pending = append(d.pending, swarm.Stopping{})
}

// abort is fail for workers.
func (d *download) abort(err error) {
	d.inbox.do(func() {
		d.fail(err)
		d.drain()
	})
}

// deadline is when a machine wants to be stepped if nothing happens before.
func (d *download) deadline() (swarm.Instant, bool) {
	at, ok := d.machine.Deadline()
	if d.private != nil {
		if t, set := d.private.Deadline(); set && (!ok || t < at) {
			at, ok = t, true
		}
	}
	return at, ok
}

// due steps the machines whose deadline has passed.
func (d *download) due() {
	now := d.node.now()
	if at, ok := d.machine.Deadline(); ok && at <= now {
		d.step(nil)
	}
	if d.private != nil && !d.quit {
		if at, ok := d.private.Deadline(); ok && at <= now {
			d.stepPrivate(nil)
			d.drain()
		}
	}
}

// step hands one event to the machine and carries out what it orders, and what comes
// of that at once.
func (d *download) step(ev swarm.Event) {
	d.stepOne(ev)
	d.drain()
}

func (d *download) drain() {
	for len(d.pending) > 0 && !d.quit {
		next := d.pending[0]
		d.pending = d.pending[1:]
		d.stepOne(next)
	}
	d.pending = d.pending[:0]
}

func (d *download) stepOne(ev swarm.Event) {
	switch ev := ev.(type) {
	case swarm.OriginEnded:
		delete(d.cancels, ev.Request)
	case swarm.PeerEnded:
		delete(d.cancels, ev.Request)
	case swarm.Audited:
		delete(d.cancels, ev.Request)
	case swarm.OriginStored:
		d.noteStored(ev.Piece)
	case swarm.PeerStored:
		d.noteStored(ev.Piece)
	case swarm.TrackerSaid:
		if h, ok := ev.Message.(swarm.Handout); ok && d.room != nil {
			d.room.learn(h.Peers)
		}
	}
	if said, ok := ev.(swarm.TrackerSaid); ok {
		if hold, ok := said.Message.(swarm.Hold); ok {
			d.addresses.hold(hold.Source, hold.For) // what is on its way there but not sent yet must wait as well
		}
	}
	d.actions = d.machine.Step(d.node.now(), ev, d.actions[:0])
	for _, a := range d.actions {
		if d.quit {
			return
		}
		d.carryOut(a)
	}
}

// noteStored notes, before the machine hears it, that piece i is stored.
func (d *download) noteStored(i piece.Index) {
	d.pausedFor = nil
	if d.early[i] {
		delete(d.early, i)
		d.pending = append(d.pending, swarm.Unreadable{Piece: i})
	}
}

// carryOut does what one action orders. What blocks is left to a worker.
func (d *download) carryOut(action swarm.Action) {
	g := d.generation()
	switch a := action.(type) {
	case swarm.TellTracker:
		if d.private != nil {
			d.stepPrivate(swarm.MemberSaid{Member: d.node.self(), Message: a.Message})
		} else {
			d.session.tell(a.Message)
		}
	case swarm.SeekTracker:
		d.session.seek(d, a.Peer)
	case swarm.QueueTracker:
		d.session.queue(a.In)
	case swarm.HostTracker:
		d.host(a.On)
	case swarm.Dial:
		d.room.open(d, a.Peer)
	case swarm.HangUp:
		d.room.shut(d, a.Peer)
	case swarm.TellPeer:
		d.room.tell(d, a.Peer, a.Message)
	case swarm.ProbeOrigin:
		d.start(a.Request, func(ctx context.Context) { d.probeOrigin(ctx, a) })
	case swarm.SetGeneration:
		if err := d.begin(a); err != nil {
			d.fail(err)
		}
	case swarm.FetchOrigin:
		d.start(a.Request, func(ctx context.Context) { d.fetchOrigin(ctx, g, a) })
	case swarm.CancelOrigin:
		d.cancelRequest(a.Request)
	case swarm.FetchPeer:
		d.start(a.Request, func(ctx context.Context) { d.fetchPeer(ctx, g, a) })
	case swarm.Serve:
		d.answer(a.Request, true)
	case swarm.Refuse:
		d.answer(a.Request, false)
	case swarm.AuditLeaf:
		if d.serving != nil {
			d.pending = append(d.pending, swarm.Audited{Request: a.Request, Result: swarm.AuditFailed})
			return
		}
		d.start(a.Request, func(ctx context.Context) { d.auditLeaf(ctx, g, a) })
	case swarm.Forget:
		if d.serving != nil {
			return // the file is its user's
		}
		if err := d.file.Forget(a.Piece); err != nil {
			d.fail(storeProblem(err))
		}
	case swarm.Finish:
		if d.failure != nil {
			return // an empty file is whole at once, though it could not be opened
		}
		if d.serving != nil {
			d.pending = append(d.pending, swarm.Finished{})
			return
		}
		d.checking = true
		d.progress()
		d.work.Go(func() { d.finish(d.ctx, g, a.Basis) })
	case swarm.Warn:
		switch a.Code {
		case swarm.WarnChanged:
			if g == nil && d.moved {
				return // what is left is of another URL, and not touched
			}
		case swarm.WarnNothingForAWhile, swarm.WarnPartNowhere:
			if d.pausedFor != nil {
				return // the user knows why
			}
		}
		if a.Code == swarm.WarnOriginAway || a.Code == swarm.WarnPartNowhere {
			d.emitNow(Event{Warning: d.outage(a.Code)})
			return
		}
		d.emitNow(Event{Warning: warning(a, d.nameOf(a.Peer))})
	case swarm.Fail:
		d.originMu.Lock()
		last, atLast := d.lastError, d.erredLast
		d.originMu.Unlock()
		switch {
		case d.failure != nil:
		case a.Code == swarm.FailSilence && d.pausedFor != nil:
			d.failure = storeProblem(d.pausedFor)
		case a.Code == swarm.FailMismatch && d.mismatch != nil:
			d.failure = d.mismatch
		default:
			d.failure = failProblem(a.Code, last, atLast, d.kept(), d.spec.GiveUpAfter)
		}
	case swarm.Quit:
		d.quit = true
	}
}

// start runs one worker until it posts the event that ends its request.
func (d *download) start(req swarm.Request, f func(context.Context)) {
	ctx, cancel := context.WithCancel(d.ctx)
	d.cancels[req] = cancel
	d.work.Go(func() {
		defer cancel()
		f(ctx)
	})
}

func (d *download) cancelRequest(req swarm.Request) {
	if cancel := d.cancels[req]; cancel != nil {
		cancel()
	}
}

// stepPrivate is a step of the tracker that a download without a room has for itself.
func (d *download) stepPrivate(ev swarm.TrackerEvent) {
	for _, action := range d.private.Step(d.node.now(), ev, nil) {
		switch a := action.(type) {
		case swarm.TellMember:
			d.pending = append(d.pending, swarm.TrackerSaid{Message: a.Message})
		case swarm.CutMember:
			// The machine was silent for longer than a tracker bears, as after the
			// computer slept: it announces itself anew.
			d.pending = append(d.pending, swarm.TrackerUp{})
		}
	}
}

// attach connects the download with its tracker and its room.
func (d *download) attach() {
	if d.private != nil {
		d.pending = append(d.pending, swarm.TrackerUp{})
		return
	}
	d.room.attach(d)
	close(d.attached)
	if d.want != nil && d.serving == nil {
		d.node.publishSoon()
		d.work.Go(d.meetHolders)
	}
	d.session = d.openSession()
}

func (d *download) detach() {
	if d.private != nil {
		return
	}
	d.host(false)
	d.room.detach(d)
	d.session.close()
}

// host carries out HostTracker.
func (d *download) host(on bool) {
	t := d.node.opts.Tracker
	switch {
	case t == nil:
	case !on:
		t.Unhost(d.room.id, d.pool)
	case !t.Host(d.room.id, d.pool):
		// The session that the machine seeks next is refused.
		d.log.Warn("too many pools to take the tracker's place in one more")
	}
}

// close leaves the file as it should stay and returns why the download failed, nil if it did not.
func (d *download) close() error {
	for req := range d.waiters {
		d.answer(req, false)
	}
	d.release()
	if d.file != nil {
		end := d.file.Close
		if d.stdout() || d.lent != nil {
			end = d.file.Discard
		}
		if err := end(); err != nil && d.failure == nil && d.saved == nil {
			d.failure = storeProblem(err)
		}
	}
	if d.serving != nil {
		if err := d.serving.files.Close(); err != nil {
			d.log.Info("close what was served", "err", err)
		}
		d.failure = nil // it was stopped, for nothing was to be downloaded
		return nil
	}
	if d.lent != nil {
		if d.failure == nil {
			return nil
		}
		return d.failure
	}
	if d.saved == nil {
		if d.failure == nil {
			d.failure = problem("other", ExitOther, errors.New("the download ended without its file"))
		}
		return d.failure
	}
	return nil
}

// tellEnd tells how the download ended, once its place is free: who hears of the end
// may begin the same again at once.
func (d *download) tellEnd() {
	if d.failure != nil && d.saved == nil {
		d.emitNow(Event{Failed: &d.failure.Problem})
		return
	}
	d.emitNow(Event{Ended: &struct{}{}})
}

func (d *download) memberUp(l *link) {
	d.emitNow(Event{Member: &MemberChange{ID: l.id.String(), Name: l.name, Up: true}})
}

func (d *download) memberDown(l *link) {
	d.emitNow(Event{Member: &MemberChange{ID: l.id.String(), Name: l.name}})
}

// nameOf is what a member of the room is called.
func (d *download) nameOf(id piece.NodeID) string {
	switch {
	case d.room == nil:
		return id.String()
	case id == d.room.self:
		return "this machine"
	}
	return d.room.members.name(id)
}

// release closes what newDownload opened.
func (d *download) release() {
	d.addresses.close()
	if d.peers != nil {
		d.peers.Close()
	}
	d.cancel()
	d.stop()
}

// progress emits where the download stands, if that has changed.
func (d *download) progress() {
	p := Progress{Path: d.shownPath(), Size: piece.UnknownSize, ETA: -1, Members: 1 + len(d.links)}
	missing := int64(-1)
	if g := d.generation(); g != nil {
		have := d.machine.Have()
		p.Size = d.size(g)
		p.Have = d.held(g, have)
		missing = p.Size - p.Have
	} else {
		p.Have = d.counts.spooled.Load()
	}
	p.OriginBytes, p.PeerBytes, p.UploadedBytes = d.counts.origin.Load(), d.counts.peer.Load(), d.counts.uploaded.Load()
	p.OriginRate, p.PeerRate, p.UploadRate = d.meter.rates(sample{time.Now(), p.OriginBytes, p.PeerBytes, p.UploadedBytes})
	p.Rate = p.OriginRate + p.PeerRate
	if missing >= 0 {
		p.ETA = eta(missing, p.Rate)
	}
	switch {
	case d.saved != nil, d.serving != nil:
		p.State = "serving"
	case d.checking:
		p.State = "checking"
	case p.Size < 0 && p.Have == 0:
		p.State = "connecting"
	case len(d.cancels) == 0, d.paused() != nil:
		p.State = "waiting"
	default:
		p.State = "downloading"
	}
	if p != d.last {
		d.last = p
		d.latest.Store(&p)
		d.emitNow(Event{Progress: &p})
	}
}
