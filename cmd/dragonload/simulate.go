package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/spf13/cobra"

	"dragonload/internal/sim"
)

func newSimulate(std streams) *cobra.Command {
	var members int
	var seed uint64
	var drawn bool
	size := rateValue(1 << 30)
	members = 100
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "drive the deciding machines with virtual members",
		Long: `Plays a download of many members in virtual time, with the very code that decides
in a real one, and prints the time of the last member, what the fluid bound would
have been, and the copies that the origin sent. With --drawn the world and its
faults (late joins, leaves, kills, losses, partitions) are drawn from the seed.
The same flags give the same run.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			for _, flag := range []string{"members", "size"} {
				if drawn && cmd.Flags().Changed(flag) {
					return usagef("--drawn draws the members and the size too; leave --%s out", flag)
				}
			}
			if size < 1 {
				return usagef("--size must be at least 1 byte")
			}
			if _, given := cfg.tables["simulate"]["seed"]; !given && !cmd.Flags().Changed("seed") {
				seed = rand.Uint64N(1 << 32)
			}
			world := sim.Uniform(members, int64(size), seed)
			if drawn {
				world = sim.Draw(seed)
			}
			again := fmt.Sprintf("--members %d --size %d --seed %d", members, int64(size), seed)
			if drawn {
				again = fmt.Sprintf("--drawn --seed %d", seed)
			}
			return simulate(cmd.Context(), world, again, std)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Var(&countValue{n: &members, min: 1, max: 20000}, "members", "how many members")
	f.Var(&size, "size", "size of the file")
	f.Uint64Var(&seed, "seed", 0, "seed `X` of what is random (default: drawn, and printed)")
	f.BoolVar(&drawn, "drawn", false, "draw the world and its faults from the seed")
	return cmd
}

// simulate plays a world; again are the flags that do so another time.
func simulate(ctx context.Context, world sim.World, again string, std streams) error {
	// A run cannot be stopped; when the user stops it, the process ends without it.
	done := make(chan sim.Result, 1)
	go func() { done <- sim.Run(world) }()
	var r sim.Result
	select {
	case r = <-done:
	case <-ctx.Done():
		return failf(exitStopped, "stopped; dragonload simulate %s begins the same run again", again)
	}
	fmt.Fprint(std.out, r)
	if r.Err != nil {
		fmt.Fprintf(std.err, "dragonload: a promise was broken: %v\n", r.Err)
		return &failure{code: exitOther, err: r.Err, shown: true}
	}
	return nil
}
