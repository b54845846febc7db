package node

import "time"

// Asleep has n believe that the computer has slept for so long since it was started. It
// is called before Run.
func (n *Node) Asleep(f func() time.Duration) {
	n.moment = func() moment { return moment{running: time.Now(), asleep: f()} }
}
