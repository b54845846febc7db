package store

import (
	"fmt"

	"go.etcd.io/bbolt"
)

// Targets returns the targets, in their order, of the unfinished downloads of source.
// It changes nothing.
func (j *Journal) Targets(source string) ([]string, error) {
	var targets []string
	err := j.guard(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			all := tx.Bucket(downloadsBucket)
			if all == nil {
				return nil
			}
			return all.ForEachBucket(func(target []byte) error {
				// A record that cannot be read is none.
				if r, err := decodeRecord(all.Bucket(target).Get(recordKey)); err == nil && r.source == source {
					targets = append(targets, string(target))
				}
				return nil
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", j.path, err)
	}
	return targets, nil
}
