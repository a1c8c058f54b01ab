package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/host/echotest"
)

// An image is what is tried.
type image struct {
	spec            harness.Spec
	command, answer string            // on its console; empty if nothing is typed
	echo            *echotest.Profile // nil if it has no echo service
	crash           string            // a command; empty if nothing is to crash
}

const (
	within = 10 * time.Second // of the machine's time, for an answer
	clones = 3                // machines at once from one template
)

// errNoCrash is the error of a machine that does not crash when it should.
var errNoCrash = errors.New("the harness has found no crash")

// check makes all checks, one after the other. A machine that does not boot ends them.
func (i image) check(ctx context.Context) (rows []echotest.Row) {
	add := func(check, saw string, err error) bool {
		rows = append(rows, echotest.Row{Check: check, Saw: saw, Err: err})
		return err == nil
	}
	for _, want := range []harness.BootMode{harness.BootCold, harness.BootRestored} {
		m, err := harness.Boot(ctx, i.spec)
		if err != nil {
			add("boot, "+string(want), "no ready machine", err)
			return rows
		}
		r := m.Result()
		if r.Boot != want {
			err = fmt.Errorf("it is %s: %s", r.Boot, r.Why)
		}
		add("boot, "+string(want), fmt.Sprintf("ready after %.2f s", r.ReadySeconds), err)
		if want == harness.BootCold || err != nil {
			m.Close()
			continue
		}
		if i.command != "" {
			saw, err := i.types(ctx, m)
			add("console, "+i.command, saw, err)
		}
		if i.echo != nil {
			dial := func(ctx context.Context, network string) (net.Conn, error) { return m.Dial(ctx, network, 4242) }
			report := echotest.Run(ctx, echotest.Service{Dial: dial, Console: m.Console(), Timeout: within}, *i.echo)
			rows = append(rows, report.Rows...)
		}
		err = m.Shutdown(ctx)
		add("shutdown", string(m.Result().State), err)
	}
	saw, err := i.several(ctx)
	add(fmt.Sprintf("%d machines at once", clones), saw, err)
	if i.crash != "" {
		saw, err := i.crashes(ctx)
		add("crash, "+i.crash, saw, err)
	}
	return rows
}

// types types the command and returns the line of its answer.
func (i image) types(ctx context.Context, m *harness.Machine) (string, error) {
	ctx, cancel := m.Within(ctx, within)
	defer cancel()
	if err := m.Console().Send(ctx, i.command); err != nil {
		return "nothing was typed", err
	}
	match, err := m.Console().Expect(ctx, i.answer)
	if err != nil {
		return "no answer", err
	}
	return match[0], nil
}

// several restores machines side by side and types the command on each.
func (i image) several(ctx context.Context) (string, error) {
	errs := make(chan error, clones)
	for range clones {
		go func() {
			m, err := harness.Boot(ctx, i.spec)
			if err == nil {
				if r := m.Result(); r.Boot != harness.BootRestored {
					err = fmt.Errorf("one is %s: %s", r.Boot, r.Why)
				} else if i.command != "" {
					_, err = i.types(ctx, m)
				}
				m.Close()
			}
			errs <- err
		}()
	}
	good := 0
	var failed error
	for range clones {
		if err := <-errs; err != nil {
			failed = errors.Join(failed, err)
		} else {
			good++
		}
	}
	return fmt.Sprintf("%d restored", good), failed
}

// crashes makes a machine crash and returns what the harness says of it.
func (i image) crashes(ctx context.Context) (string, error) {
	m, err := harness.Boot(ctx, i.spec)
	if err != nil {
		return "no ready machine", err
	}
	defer m.Close()
	ctx, cancel := m.Within(ctx, within)
	defer cancel()
	if err := m.Console().Send(ctx, i.crash); err != nil && !errors.Is(err, harness.ErrGuest) {
		return "nothing was typed", err
	}
	err = m.Wait(ctx)
	if !errors.Is(err, harness.ErrGuest) {
		return "none", errors.Join(errNoCrash, err)
	}
	saw := strings.TrimPrefix(err.Error(), harness.ErrGuest.Error()+": ")
	if code := m.Report().Code; len(code) > 0 {
		saw += "; " + code[0]
	}
	return saw, nil
}
