package node

import (
	"context"
	"fmt"
	"strings"

	"dragonload/internal/store"
	"dragonload/internal/swarm"
)

// gather takes what a folder lacks and other folders beside it have, such as the finished
// one of the version before. It is held like what an earlier run left.
func (d *download) gather(ctx context.Context, opts *swarm.NodeOptions) error {
	if r := opts.Resume; r != nil && r.Have.All() {
		return nil
	}
	folders, err := d.file.Beside()
	if err != nil {
		return storeProblem(err)
	}
	if len(folders) == 0 {
		return nil
	}
	if err := d.file.Begin(d.want.pin(), 0, false); err != nil {
		return storeProblem(err)
	}
	bytes, from, err := d.file.Gather(ctx, folders)
	switch {
	case ctx.Err() != nil:
		return AsError(ctx.Err())
	case err != nil:
		d.log.Info("not all that lies beside a download was copied", "err", err) // it comes from others, or says why not
	}
	if bytes == 0 {
		return nil
	}
	resume := &swarm.Resume{Pin: d.want.pin(), Have: d.file.Held()}
	if before := opts.Resume; before != nil {
		resume.Digests, resume.Origin = before.Digests, before.Origin
	}
	opts.Resume = resume
	d.left, d.leftHave = resume.Pin, resume.Have.Clone()
	d.resumed = heldBytes(d.want.layout, &resume.Have)
	d.warn("copied", fmt.Sprintf("%s of %s are as in %s and were copied from there, checked", store.Bytes(bytes), d.target, strings.Join(from, ", ")))
	return nil
}
