package lan

// Send sends a frame as the machine of the link does.
func (l *Link) Send(frame []byte) { l.link.Send(frame) }
