package lan

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A word is a word of a lan in text form, such as loss=5%.
type word struct {
	name, example string
	set           func(c *Config, value string) error
	text          func(c Config) string // empty for the zero value
}

// words are all words, in the order in which String writes them.
var words = []word{
	percentage("loss", func(f *Faults) *float64 { return &f.Loss }),
	limited("burst", func(f *Faults) (*float64, *int) { return &f.BurstLoss, &f.BurstLength }),
	percentage("duplicate", func(f *Faults) *float64 { return &f.Duplicate }),
	limited("reorder", func(f *Faults) (*float64, *int) { return &f.Reorder, &f.ReorderFrames }),
	percentage("bitflip", func(f *Faults) *float64 { return &f.BitFlip }),
	percentage("truncate", func(f *Faults) *float64 { return &f.Truncate }),
	{"delay", "20ms or 20ms±5ms", setDelay, delayText},
	{"rate", "10Mbit, or kbit or Gbit", setRate, rateText},
	number("queue", "65536, in bytes", func(c *Config) *int { return &c.Faults.Queue }),
	number("mtu", "1400, in bytes", func(c *Config) *int { return &c.Faults.MTU }),
	prefix("ipv4", "10.7.0.0/24", defaultIPv4, func(c *Config) *netip.Prefix { return &c.IPv4 }),
	prefix("ipv6", "fd00:7::/64", defaultIPv6, func(c *Config) *netip.Prefix { return &c.IPv6 }),
	{"seed", "7", setSeed, func(c Config) string { return decimal(c.Seed) }},
}

const kind = "lan"

// ParseConfig returns the lan that a text describes, as the flag -net of guesthouse run takes it: "lan", or
// "lan,loss=5%,delay=20ms±5ms,seed=7". The faults are those of all links.
//
// The words are loss, burst, duplicate, reorder, bitflip, truncate, delay, rate, queue, mtu, ipv4, ipv6 and seed, for the
// fields of a Config and of its Faults. burst=1%:10 is a burst of up to 10 frames, and reorder=1%:3 lets up to 3 frames
// overtake.
func ParseConfig(text string) (Config, error) {
	c, err := parseConfig(text)
	if err != nil {
		return Config{}, fmt.Errorf("network %q: %w", text, err)
	}
	return c, nil
}

func parseConfig(text string) (c Config, err error) {
	first, rest, more := strings.Cut(text, ",")
	if first != kind {
		return c, fmt.Errorf("unknown kind %q: write lan, or lan and faults, as in lan,loss=5%%", first)
	}
	var seen []string
	for more {
		var part string
		part, rest, more = strings.Cut(rest, ",")
		name, value, _ := strings.Cut(part, "=")
		at := slices.IndexFunc(words, func(w word) bool { return w.name == name })
		if at < 0 {
			var known []string
			for _, w := range words {
				known = append(known, w.name)
			}
			return c, fmt.Errorf("unknown word %q: the words are %s", name, strings.Join(known, ", "))
		}
		if slices.Contains(seen, name) {
			return c, fmt.Errorf("%s is there twice", name)
		}
		seen = append(seen, name)
		if err := words[at].set(&c, value); err != nil {
			return c, fmt.Errorf("%s=%s: %w: write %s=%s", name, value, err, name, words[at].example)
		}
	}
	return c, c.complete()
}

// String returns the lan in the form that ParseConfig reads. It leaves the Capture out.
func (c Config) String() string {
	text := kind
	for _, w := range words {
		if value := w.text(c); value != "" {
			text += "," + w.name + "=" + value
		}
	}
	return text
}

func decimal[T ~int | ~int64 | ~uint64](n T) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func percentage(name string, field func(*Faults) *float64) word {
	return word{name, "5%", func(c *Config, value string) (err error) {
		*field(&c.Faults), err = parsePercentage(value)
		return err
	}, func(c Config) string { return percentageText(*field(&c.Faults)) }}
}

// limited is a word for a percentage and a number of frames.
func limited(name string, field func(*Faults) (*float64, *int)) word {
	return word{name, "5% or 5%:10", func(c *Config, value string) (err error) {
		p, frames := field(&c.Faults)
		chance, most, two := strings.Cut(value, ":")
		if *p, err = parsePercentage(chance); err == nil && two {
			*frames, err = parseNumber(most, 1000)
		}
		return err
	}, func(c Config) string {
		p, frames := field(&c.Faults)
		text := percentageText(*p)
		if text != "" && *frames > 0 {
			text += ":" + decimal(*frames)
		}
		return text
	}}
}

func number(name, example string, field func(*Config) *int) word {
	return word{name, example, func(c *Config, value string) (err error) {
		*field(c), err = parseNumber(value, 1<<30)
		return err
	}, func(c Config) string { return decimal(*field(&c)) }}
}

func prefix(name, example string, usual netip.Prefix, field func(*Config) *netip.Prefix) word {
	return word{name, example, func(c *Config, value string) (err error) {
		*field(c), err = netip.ParsePrefix(value)
		return err
	}, func(c Config) string {
		if p := *field(&c); p.IsValid() && p != usual {
			return p.String()
		}
		return ""
	}}
}

func parsePercentage(text string) (float64, error) {
	digits, ok := strings.CutSuffix(text, "%")
	p, err := strconv.ParseFloat(digits+"e-2", 64)
	if !ok || err != nil || !(p >= 0 && p <= 1) {
		return 0, errors.New("not a percentage from 0% to 100%")
	}
	return p, nil
}

// percentageText returns the shortest text that parsePercentage reads as p.
func percentageText(p float64) string {
	if p == 0 {
		return ""
	}
	whole, fraction, _ := strings.Cut(strconv.FormatFloat(p, 'f', -1, 64), ".")
	fraction += strings.Repeat("0", max(0, 2-len(fraction)))
	text := cmp.Or(strings.TrimLeft(whole+fraction[:2], "0"), "0")
	if fraction = fraction[2:]; fraction != "" {
		text += "." + fraction
	}
	return text + "%"
}

func parseNumber(text string, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("not a number from 1 to %d", most)
	}
	return n, nil
}

func setDelay(c *Config, value string) (err error) {
	delay, jitter, two := strings.Cut(value, "±")
	if !two {
		delay, jitter, two = strings.Cut(value, "+-") // for keyboards without the sign
	}
	if c.Faults.Delay, err = time.ParseDuration(delay); err == nil && two {
		c.Faults.Jitter, err = time.ParseDuration(jitter)
	}
	if err != nil {
		return errors.New("not a time")
	}
	return nil
}

func delayText(c Config) string {
	f := c.Faults
	switch {
	case f.Jitter > 0:
		return fmt.Sprintf("%v±%v", f.Delay, f.Jitter)
	case f.Delay > 0:
		return f.Delay.String()
	}
	return ""
}

// rateUnits are the units of a rate, the largest first.
var rateUnits = []struct {
	name string
	bits int64
}{{"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

func setRate(c *Config, value string) error {
	for _, unit := range rateUnits {
		if digits, ok := strings.CutSuffix(value, unit.name); ok {
			n, err := strconv.ParseFloat(digits, 64)
			if n *= float64(unit.bits); err == nil && n >= 1 && n <= 1e15 {
				c.Faults.Rate = int64(n)
				return nil
			}
			break
		}
	}
	return errors.New("not a rate in bits per second")
}

func rateText(c Config) string {
	for _, unit := range rateUnits {
		if n := c.Faults.Rate; n > 0 && n%unit.bits == 0 {
			return decimal(n/unit.bits) + unit.name
		}
	}
	return ""
}

func setSeed(c *Config, value string) (err error) {
	if c.Seed, err = strconv.ParseUint(value, 10, 64); err != nil || c.Seed == 0 {
		return errors.New("not a number from 1 to 18446744073709551615")
	}
	return nil
}
